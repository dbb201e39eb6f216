//! What the proxied door is made of, refused at the start if it could be fooled.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderName;

use super::DoorError;
use super::forwarded::Forwarding;
use crate::auth::secret;
use crate::authority::live::LiveAuthorities;
use crate::config::ProxiedDoor;

/// Shortest secret, bytes.
const MIN_SECRET_BYTES: usize = 16;
/// Longest secret, bytes.
const MAX_SECRET_BYTES: u64 = 1024;

/// Refuses a door that would believe anybody.
pub fn check(config: &ProxiedDoor) -> Result<(), DoorError> {
    let authenticated = config.proxy_ca_file.is_some() || config.secret_file.is_some();
    if config.listen.is_some() && (config.trusted_proxies.is_empty() || !authenticated) {
        return Err(DoorError::AnyProxy);
    }
    Ok(())
}

/// What the door believes.
pub fn forwarding(
    config: &ProxiedDoor,
    authorities: LiveAuthorities,
) -> Result<Arc<Forwarding>, DoorError> {
    let form = config.certificate_form;
    let name = config.certificate_header.as_deref().unwrap_or(form.header());
    let header = HeaderName::try_from(name).map_err(|_| DoorError::Header(name.to_owned()))?;
    let secret_sha256 = config.secret_file.as_deref().map(read_secret).transpose()?;
    Ok(Arc::new(Forwarding { header, form, secret_sha256, authorities }))
}

fn read_secret(path: &Path) -> Result<[u8; 32], DoorError> {
    let refuse = |advice: String| DoorError::Secret { path: path.into(), advice };
    let file = File::open(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let mode = file.metadata().map_err(|error| refuse(error.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(refuse("can be read by others than its owner: chmod 600 it".into()));
    }
    let mut text = String::new();
    file.take(MAX_SECRET_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let text = text.trim();
    if text.len() < MIN_SECRET_BYTES {
        return Err(refuse(format!("has fewer than {MIN_SECRET_BYTES} bytes")));
    }
    Ok(secret::digest(text))
}
