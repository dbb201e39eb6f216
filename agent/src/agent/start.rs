//! The identity to run with: the one on disk, if it is this machine's ([`crate::machine`]), or a new one
//! where the configuration names a token.

use std::io;
use std::path::Path;

use shared_model::{JoinToken, Timestamp};

use crate::config::Config;
use crate::enroll::{self, EnrollError, Enrolled};
use crate::facts;
use crate::identity::{Identity, IdentityError};
use crate::machine::{self, Machine, MachineError, Verdict};
use crate::procfs::Root;

/// Why there is no identity to run with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// None, and no token; or it is unreadable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// See there.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// By the token of the configuration.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// For enrolment.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// A copy, and no token to get an identity of its own with.
    #[error(
        "the identity in {0} is that of another machine: this disk was copied from it, or moved. Copied: set `token_file`, or run `procfleet-agent enroll`; the copy of the identity is kept aside. Moved, and the other machine is gone: run `procfleet-agent rebind`"
    )]
    Copied(String),
}

/// Where facts about this machine are read.
pub fn root(config: &Config) -> Root {
    Root::at(&config.facts_root)
}

/// The place this agent runs in.
pub fn place(config: &Config) -> uuid::Uuid {
    let root = root(config);
    machine::place(&Machine::read(&root), &root, &config.state_dir)
}

/// Loads the identity; enrols first where there is none of this machine and the configuration has a token.
pub fn identity(config: &Config) -> Result<Identity, StartError> {
    let dir = config.identity_dir();
    let machine = Machine::read(&root(config));
    let token = Some(config.token_file.as_path()).filter(|file| file.exists());
    match (machine.check(&dir)?, token) {
        (Verdict::Copied, None) => return Err(StartError::Copied(dir.display().to_string())),
        (Verdict::Copied | Verdict::Doubtful, Some(_)) => set_aside(config)?,
        (Verdict::Doubtful, None) => tracing::warn!(
            "the machine-id is not the one the identity was made with: if this disk is a copy, enrol this machine anew"
        ),
        (Verdict::Ours, _) => {}
    }
    match (Identity::load(&dir), token) {
        (Err(IdentityError::NotEnrolled(_)), Some(file)) => enroll(config, file),
        (Ok(identity), _) => {
            if machine.check(&dir)? == Verdict::Ours {
                machine.refresh(&dir)?;
            }
            Ok(identity)
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Gets this machine an identity with the token in `file`, which stays: images are made of it.
fn enroll(config: &Config, file: &Path) -> Result<Identity, StartError> {
    let token = enroll::read_token(Some(file))?;
    let (Enrolled::New(identity) | Enrolled::Already(identity)) = enroll_with(config, &token)?;
    tracing::info!(host_id = %identity.host_id, "enrolled with the configured token");
    Ok(identity)
}

/// `procfleet-agent enroll`: with the token in `token_file`, which is removed after success, or of the environment
/// or a person. What a copied disk brought is set aside.
pub fn enroll_by_hand(config: &Config, token_file: Option<&Path>) -> Result<Enrolled, StartError> {
    let dir = config.identity_dir();
    let copied = Machine::read(&root(config)).check(&dir)? == Verdict::Copied;
    match Identity::load(&dir) {
        Ok(identity) if !copied => return Ok(Enrolled::Already(identity)),
        Ok(_) | Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let token = enroll::read_token(token_file)?;
    if copied {
        set_aside(config)?;
    }
    let enrolled = enroll_with(config, &token)?;
    token_file.map(enroll::remove_token).transpose()?;
    Ok(enrolled)
}

fn enroll_with(config: &Config, token: &JoinToken) -> Result<Enrolled, StartError> {
    let (dir, root) = (config.identity_dir(), root(config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    #[expect(clippy::disallowed_methods, reason = "enrolment happens once, now")]
    let now = Timestamp::now_utc();
    // Before there is a key: a copy of a machine that never got an answer must not use it too.
    Machine::read(&root).bind(&dir)?;
    Ok(runtime.block_on(enroll::enroll(token, facts::read(&root), &dir, now))?)
}

fn set_aside(config: &Config) -> Result<(), StartError> {
    #[expect(clippy::disallowed_methods, reason = "a name of what is set aside, once")]
    let now = Timestamp::now_utc();
    machine::set_aside(&config.identity_dir(), &config.spool_dir(), now)?;
    tracing::warn!("the disk is a copy of another machine's: its identity and spool are set aside");
    Ok(())
}

/// Makes the identity on disk this machine's, whatever machine it was made on.
pub fn rebind(config: &Config) -> Result<Identity, StartError> {
    let dir = config.identity_dir();
    let identity = Identity::load(&dir)?;
    Machine::read(&root(config)).bind(&dir)?;
    Ok(identity)
}
