//! Plans that a person can read: a rack in a few lines, and what is planned for it.

mod behave;
mod rack;

mod keep;
mod pack;
mod pairs;
mod place;
mod spread;
mod traps;
