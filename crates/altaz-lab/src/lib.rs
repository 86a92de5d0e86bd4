//! altaz-lab
