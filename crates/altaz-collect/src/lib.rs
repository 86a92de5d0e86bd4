//! altaz-collect
