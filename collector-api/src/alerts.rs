//! Alerts: the sweep that finds who is silent, and the delivery of what is to be told.
//!
//! Both loops run on every replica; what keeps them from doing anything twice is in the database
//! ([`crate::store::silence`], [`crate::store::notifications`]). A provider is one file: how a message
//! becomes its request, and what its answer means. What hosts say of themselves is hostile: it reaches
//! a message only through its provider's `escape`, and a destination only after [`destination`] saw
//! every address that it leads to.

pub mod alertmanager;
pub mod delivery;
pub mod destination;
pub mod dingtalk;
pub mod email;
pub mod evidence;
pub mod feishu;
pub mod message;
pub mod ping;
pub mod provider;
pub mod rules;
pub mod sender;
pub mod slack;
pub mod sweep;
pub mod webhook;
pub mod wecom;
pub mod wording;
