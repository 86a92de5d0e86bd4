//! altaz-deploy
