//! Who is asking: extractors that fail closed.

pub mod agent;
pub mod join_token;
pub mod operator;
pub mod secret;

pub use agent::AgentIdentity;
