//! The server against real databases.

mod migrations;
