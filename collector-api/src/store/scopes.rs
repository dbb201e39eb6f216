//! Scopes: what API keys may do, one name for each kind of change.
//!
//! A role is the scopes that it reaches ([`Scope::least_role`]). A key may be narrowed to some of its role's:
//! a script that silences alerts needs no right to do anything else, not even to read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api_keys::Role;

/// One kind of question or change.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum Scope {
    /// Hosts, processes, samples, alerts, rules and profiles are read.
    #[serde(rename = "fleet:read")]
    FleetRead,
    /// Hosts are approved, set aside, decommissioned and labelled.
    #[serde(rename = "hosts:write")]
    HostsWrite,
    /// Profiles, and settings of single hosts.
    #[serde(rename = "configuration:write")]
    ConfigurationWrite,
    /// Alerts are acknowledged and silenced, rules written.
    #[serde(rename = "alerts:write")]
    AlertsWrite,
    /// Channels, which hold other systems' secrets.
    #[serde(rename = "channels:write")]
    ChannelsWrite,
    /// Enrolment tokens.
    #[serde(rename = "tokens:write")]
    TokensWrite,
    /// API keys.
    #[serde(rename = "api_keys:write")]
    ApiKeysWrite,
    /// Certificates are revoked, authorities replaced.
    #[serde(rename = "certificates:write")]
    CertificatesWrite,
    /// Releases are brought to hosts.
    #[serde(rename = "releases:write")]
    ReleasesWrite,
    /// Data of decommissioned hosts are deleted.
    #[serde(rename = "data:delete")]
    DataDelete,
    /// The audit is read.
    #[serde(rename = "audit:read")]
    AuditRead,
}

impl Scope {
    /// All.
    pub const ALL: [Self; 11] = [
        Self::FleetRead,
        Self::HostsWrite,
        Self::ConfigurationWrite,
        Self::AlertsWrite,
        Self::ChannelsWrite,
        Self::TokensWrite,
        Self::ApiKeysWrite,
        Self::CertificatesWrite,
        Self::ReleasesWrite,
        Self::DataDelete,
        Self::AuditRead,
    ];

    /// As it is written in JSON, SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FleetRead => "fleet:read",
            Self::HostsWrite => "hosts:write",
            Self::ConfigurationWrite => "configuration:write",
            Self::AlertsWrite => "alerts:write",
            Self::ChannelsWrite => "channels:write",
            Self::TokensWrite => "tokens:write",
            Self::ApiKeysWrite => "api_keys:write",
            Self::CertificatesWrite => "certificates:write",
            Self::ReleasesWrite => "releases:write",
            Self::DataDelete => "data:delete",
            Self::AuditRead => "audit:read",
        }
    }

    /// The least role that has it.
    pub fn least_role(self) -> Role {
        match self {
            Self::FleetRead => Role::Viewer,
            Self::HostsWrite | Self::ConfigurationWrite | Self::AlertsWrite => Role::Operator,
            Self::ChannelsWrite
            | Self::TokensWrite
            | Self::ApiKeysWrite
            | Self::CertificatesWrite
            | Self::ReleasesWrite
            | Self::DataDelete
            | Self::AuditRead => Role::Admin,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A scope nobody knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a scope is one of fleet:read, hosts:write, configuration:write, alerts:write, channels:write, tokens:write, api_keys:write, certificates:write, releases:write, data:delete, audit:read"
)]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// Scopes that no key can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongScopes {
    /// An empty list.
    #[error("a key has at least one scope; leave them out for all of its role's")]
    None,
    /// One that the role does not reach.
    #[error("the role {1} does not have the scope {0}")]
    Beyond(Scope, Role),
}

/// What a key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Its role.
    pub role: Role,
    /// Of the role's scopes; none: all of them.
    pub scopes: Option<Vec<Scope>>,
}

impl Rights {
    /// All of a role's.
    pub fn of(role: Role) -> Self {
        Self { role, scopes: None }
    }

    /// Whether a key may be made with them.
    pub fn check(&self) -> Result<(), WrongScopes> {
        let Some(scopes) = &self.scopes else { return Ok(()) };
        if scopes.is_empty() {
            return Err(WrongScopes::None);
        }
        let beyond = scopes.iter().find(|scope| scope.least_role() > self.role);
        beyond.map_or(Ok(()), |scope| Err(WrongScopes::Beyond(*scope, self.role)))
    }

    /// The first scope of these that `others` do not hold.
    pub fn beyond(&self, others: &Self) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| self.allow(*scope) && !others.allow(*scope))
    }

    /// Whether they hold `scope`.
    pub fn allow(&self, scope: Scope) -> bool {
        scope.least_role() <= self.role
            && self.scopes.as_ref().is_none_or(|scopes| scopes.contains(&scope))
    }

    /// As stored. A scope that this server does not know allows nothing here.
    pub(super) fn stored(role: &str, scopes: Option<Vec<String>>) -> Result<Self, sqlx::Error> {
        let role = role
            .parse()
            .map_err(|unknown: super::api_keys::UnknownRole| sqlx::Error::Decode(unknown.into()))?;
        let known = |scopes: Vec<String>| scopes.iter().filter_map(|s| s.parse().ok()).collect();
        Ok(Self { role, scopes: scopes.map(known) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert!(UnknownScope.to_string().contains(scope.as_str()));
        }
        assert_eq!("hosts:all".parse::<Scope>(), Err(UnknownScope));
    }

    #[test]
    fn a_key_never_has_more_than_its_role_and_never_more_than_its_scopes() {
        let narrow = Rights { role: Role::Viewer, scopes: Some(vec![Scope::HostsWrite]) };
        assert!(Scope::ALL.iter().all(|scope| !narrow.allow(*scope)));
        let unknown = Rights::stored("admin", Some(vec!["later:write".into()])).unwrap();
        assert!(Scope::ALL.iter().all(|scope| !unknown.allow(*scope)));
        assert!(Scope::ALL.iter().all(|scope| Rights::of(Role::Admin).allow(*scope)));
        let operator: Vec<_> =
            Scope::ALL.into_iter().filter(|s| Rights::of(Role::Operator).allow(*s)).collect();
        assert_eq!(operator, Scope::ALL[..4]);
    }
}
