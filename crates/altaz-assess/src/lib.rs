//! altaz-assess
