//! Whole-program tests of altaz; see `tests/`.
