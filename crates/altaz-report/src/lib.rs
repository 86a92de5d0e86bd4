//! altaz-report
