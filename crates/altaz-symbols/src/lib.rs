//! altaz-symbols
