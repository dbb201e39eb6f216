//! temporary
pub mod runner;
