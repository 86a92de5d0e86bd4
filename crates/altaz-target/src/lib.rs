//! What altaz is pointed at.
