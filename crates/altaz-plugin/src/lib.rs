//! altaz-plugin
