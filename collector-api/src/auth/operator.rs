//! Operators: API keys, `Authorization: Bearer pfk1_<id>_<secret>`, or a browser's session
//! ([`super::session`]) begun with one.
//!
//! A handler takes a scope ([`FleetRead`], [`HostsWrite`], …) as its first argument after the state, so that
//! who may call it is decided before its parameters and its body are looked at. Whether a key is missing,
//! malformed, unknown or has another secret makes no difference to the answer: 401 `unauthorized`.
//! Who showed the right secret is told that the key expired or was revoked. A key without the
//! scope is answered 403 `forbidden`.
//!
//! A key that was checked is believed for [`CACHED_FOR`] without asking the database again, so a
//! revocation reaches every replica within that time. Only keys that passed are kept, and never
//! more than [`MAX_CACHED_KEYS`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{FromRef, FromRequestParts};
use axum::http::{HeaderMap, header, request::Parts};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use shared_model::enrollment::API_KEY_PREFIX;
use shared_model::{ProblemCode, Timestamp};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::rates::OperatorRates;
use super::session;
use crate::error::{ApiError, ApiResult};
use crate::store::Store;
pub use crate::store::api_keys::{NewApiKey, Role};
use crate::store::audit::Actor;
pub use crate::store::scopes::{Rights, Scope};

/// How long a key that passed is believed without asking the database.
pub const CACHED_FOR: Duration = Duration::from_secs(15);
/// Most keys remembered; beyond, all are forgotten and asked for again.
pub const MAX_CACHED_KEYS: usize = 1024;
/// Longest secret looked at, bytes of text: 32 bytes in base64url are 43.
const MAX_SECRET_BYTES: usize = 64;

/// A key just made: the only moment its secret exists in clear. No `Debug`, no `Display`.
pub struct MintedApiKey {
    /// What is stored.
    pub new: NewApiKey,
    secret: String,
}

impl MintedApiKey {
    /// Makes a key of 48 random bytes: 16 for the id, 32 for the secret.
    pub fn from_random(
        random: [u8; 48],
        name: String,
        role: Role,
        expires_at: Option<Timestamp>,
    ) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&random[..16]);
        let secret = URL_SAFE_NO_PAD.encode(&random[16..]);
        let new = NewApiKey {
            api_key_id: uuid::Builder::from_random_bytes(id).into_uuid(),
            name,
            rights: Rights::of(role),
            secret_sha256: Sha256::digest(&secret).into(),
            expires_at,
        };
        Self { new, secret }
    }

    /// What the operator gets, once: `pfk1_<id>_<secret>`.
    pub fn to_paste(&self) -> String {
        format!("{API_KEY_PREFIX}{}_{}", self.new.api_key_id.simple(), self.secret)
    }
}

/// Splits `pfk1_<id>_<secret>`; the secret may hold `_` itself.
fn parse_key(key: &str) -> Option<(Uuid, &str)> {
    let (id, secret) = key.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
    // `simple` only: one key has one spelling.
    let id = (id.len() == 32).then(|| Uuid::try_parse(id).ok())??;
    (!secret.is_empty() && secret.len() <= MAX_SECRET_BYTES).then_some((id, secret))
}

/// The `Bearer` credentials of a request: exactly one header, or none at all.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, credentials) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

/// Who calls: an API key that passed, as a log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its id.
    pub api_key_id: Uuid,
    /// What its maker calls it.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
}

impl Operator {
    /// As the audit names them.
    pub fn actor(&self) -> Actor {
        Actor::api_key(self.api_key_id, &self.name)
    }
}

struct Cached {
    operator: Operator,
    secret_sha256: [u8; 32],
    checked_at: Instant,
}

/// Checks keys. Part of the state of every router of the operator door.
#[derive(Clone)]
pub struct OperatorAuth {
    store: Store,
    cache: Arc<Mutex<HashMap<Uuid, Cached>>>,
    rates: Arc<OperatorRates>,
}

impl OperatorAuth {
    /// Checks keys against `store`, which must be able to write (`last_used_at`).
    pub fn new(store: Store) -> Self {
        Self { store, cache: Arc::default(), rates: Arc::default() }
    }

    /// Whose key `headers` show.
    pub async fn authenticate(&self, headers: &HeaderMap) -> ApiResult<Operator> {
        self.authenticate_key(bearer(headers).ok_or_else(unauthorized)?).await
    }

    /// Whose key `key` is.
    pub async fn authenticate_key(&self, key: &str) -> ApiResult<Operator> {
        let (id, secret) = parse_key(key).ok_or_else(unauthorized)?;
        let shown: [u8; 32] = Sha256::digest(secret).into();
        if let Some(operator) = self.cached(id, &shown) {
            return Ok(operator);
        }
        let stored = self.store.find_api_key(id).await?.ok_or_else(unauthorized)?;
        if !bool::from(stored.secret_sha256.as_slice().ct_eq(&shown)) {
            return Err(unauthorized());
        }
        let end = match (stored.revoked, stored.expired) {
            (true, _) => Some("The API key was revoked: ask an administrator for another."),
            (false, true) => Some("The API key has expired: ask an administrator for another."),
            (false, false) => None,
        };
        if let Some(detail) = end {
            return Err(ApiError::new(ProblemCode::Unauthorized, detail));
        }
        if let Err(error) = self.store.touch_api_key(id).await {
            // A database that only reads (a standby) must not lock the operators out.
            tracing::warn!(api_key.id = %id, error = %crate::error::Chain(&error), "last use of an API key not noted");
        }
        let operator = Operator { api_key_id: id, name: stored.name, rights: stored.rights };
        self.remember(&operator, shown);
        Ok(operator)
    }

    fn cached(&self, id: Uuid, shown: &[u8; 32]) -> Option<Operator> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = cache.get(&id).filter(|hit| hit.checked_at.elapsed() < CACHED_FOR)?;
        bool::from(hit.secret_sha256.ct_eq(shown)).then(|| hit.operator.clone())
    }

    fn remember(&self, operator: &Operator, secret_sha256: [u8; 32]) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED_KEYS {
            cache.clear();
        }
        let checked_at = Instant::now();
        let hit = Cached { operator: operator.clone(), secret_sha256, checked_at };
        cache.insert(operator.api_key_id, hit);
    }

    /// Forgets a key, so that its revocation through this replica works at once.
    pub fn forget(&self, api_key_id: Uuid) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(&api_key_id);
    }

    /// Counts a request of a key: 429 where it asks, or changes something, too often.
    pub fn count(&self, operator: &Operator, changes: bool) -> ApiResult<()> {
        self.rates.take(operator.api_key_id, changes, tokio::time::Instant::now()).map_err(|wait| {
            let detail = format!("The API key {:?} asks too often: slow down.", operator.name);
            ApiError::new(ProblemCode::TooManyRequests, detail).retry_after(wait)
        })
    }

    /// Who sent a request, and counts it. Whoever asks before the handler leaves the answer in the
    /// request's extensions.
    async fn admit(&self, parts: &Parts) -> ApiResult<Operator> {
        let operator = if parts.headers.contains_key(header::AUTHORIZATION) {
            self.authenticate(&parts.headers).await?
        } else {
            session::authenticate(&self.store, parts).await?.ok_or_else(unauthorized)?
        };
        self.count(&operator, !parts.method.is_safe())?;
        Ok(operator)
    }

    /// Who sent a request, if the key is one, whatever it may do.
    pub async fn identify(&self, parts: &Parts) -> ApiResult<Operator> {
        match parts.extensions.get::<Operator>() {
            Some(known) => Ok(known.clone()),
            None => self.admit(parts).await,
        }
    }

    /// Who sent a request, if the key has this scope and does not come too often.
    pub async fn authorize(&self, parts: &Parts, needed: Scope) -> ApiResult<Operator> {
        let operator = self.identify(parts).await?;
        if operator.rights.allow(needed) {
            return Ok(operator);
        }
        let (name, role) = (&operator.name, operator.rights.role);
        let least = needed.least_role();
        let detail = if role < least {
            format!("This needs the role {least}; the API key {name:?} has the role {role}.")
        } else {
            format!("This needs the scope {needed}, which the API key {name:?} does not have.")
        };
        Err(ApiError::new(ProblemCode::Forbidden, detail))
    }
}

fn unauthorized() -> ApiError {
    ApiError::new(
        ProblemCode::Unauthorized,
        "Send a valid API key: `Authorization: Bearer pfk1_<id>_<secret>`.",
    )
}

/// An extractor for each scope: who asks, if the key has it.
macro_rules! extractors {
    ($($scope:ident),* $(,)?) => {$(
        #[doc = concat!("A key with [`Scope::", stringify!($scope), "`].")]
        #[derive(Clone, Debug)]
        pub struct $scope(pub Operator);

        impl<S: Sync> FromRequestParts<S> for $scope
        where
            OperatorAuth: FromRef<S>,
        {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
                OperatorAuth::from_ref(state).authorize(parts, Scope::$scope).await.map(Self)
            }
        }
    )*};
}

extractors! {
    FleetRead, HostsWrite, ConfigurationWrite, AlertsWrite, ChannelsWrite, TokensWrite, ApiKeysWrite,
    CertificatesWrite, ReleasesWrite, DataDelete, AuditRead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_key_parses_back_whatever_its_secret_holds() {
        for byte in [0x00, 0x3f, 0xbf, 0xff] {
            let minted = MintedApiKey::from_random([byte; 48], "k".into(), Role::Viewer, None);
            let paste = minted.to_paste();
            let (id, secret) = parse_key(&paste).unwrap();
            assert_eq!(id, minted.new.api_key_id);
            assert_eq!(<[u8; 32]>::from(Sha256::digest(secret)), minted.new.secret_sha256);
        }
    }

    #[test]
    fn what_is_not_a_key_is_not_parsed() {
        let long = format!("pfk1_{}_{}", "0".repeat(32), "s".repeat(65));
        let dashed = format!("pfk1_{}_s", Uuid::nil());
        let empty = format!("pfk1_{}_", "0".repeat(32));
        for key in ["", "pfk1_", "pfk1__", "pfj1_x_y", "pfk1_0_s", &long, &dashed, &empty] {
            assert_eq!(parse_key(key), None, "{key}");
        }
    }

    #[test]
    fn exactly_one_bearer_header_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.append(header::AUTHORIZATION, "bearer  a".parse().unwrap());
        assert_eq!(bearer(&headers), Some("a"));
        headers.append(header::AUTHORIZATION, "Bearer b".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        headers.insert(header::AUTHORIZATION, "Basic YTpi".parse().unwrap());
        assert_eq!(bearer(&headers), None);
    }
}
