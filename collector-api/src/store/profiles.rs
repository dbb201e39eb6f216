//! `profiles`: what operators set for the hosts that a selector means.

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgTransaction;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use uuid::Uuid;

use super::audit::{Actor, record};
use super::{Store, StoreError};

/// Most profiles: every replica holds them all, and compares each with the labels of every host.
pub const MAX_PROFILES: i64 = 256;

/// A profile.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Profile {
    /// Its id.
    pub profile_id: Uuid,
    /// What operators call it.
    pub name: String,
    /// Which hosts, by their labels; null: every host.
    #[schema(example = "role=db")]
    pub selector: Option<String>,
    /// Of two profiles that set the same key, the one with the greater priority prevails.
    pub priority: i32,
    /// The keys it sets.
    #[schema(schema_with = schema)]
    pub configuration: Value,
    /// Grows with every change: what `If-Match` names.
    pub version: i32,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// What `openapi`, which is above the store, describes.
fn schema() -> Ref {
    Ref::from_schema_name("Configuration")
}

/// What an operator writes.
#[derive(Clone, Debug)]
pub struct ProfileText {
    /// What to call it.
    pub name: String,
    /// Which hosts, checked; none: every host.
    pub selector: Option<String>,
    /// See [`Profile::priority`].
    pub priority: i32,
    /// The keys it sets, checked.
    pub configuration: Value,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileChange {
    /// Done: the version it has now.
    Done(i32),
    /// There is no such profile.
    NoProfile,
    /// It has another version than was expected: somebody else changed it.
    Stale,
    /// Another one has the name.
    NameTaken,
    /// There are [`MAX_PROFILES`].
    TooMany,
}

impl Store {
    /// Every profile, the one that prevails last.
    pub async fn profiles(&self) -> Result<Vec<Profile>, StoreError> {
        sqlx::query_as!(
            Profile,
            "-- Store::profiles
            select profile_id, name, selector, priority, configuration, version, created_at, updated_at
            from profiles order by priority, profile_id"
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::of("profiles"))
    }

    /// One profile.
    pub async fn profile(&self, profile_id: Uuid) -> Result<Option<Profile>, StoreError> {
        sqlx::query_as!(
            Profile,
            "-- Store::profile
            select profile_id, name, selector, priority, configuration, version, created_at, updated_at
            from profiles where profile_id = $1",
            profile_id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::of("profile"))
    }

    /// Makes a profile.
    pub async fn create_profile(
        &self,
        profile_id: Uuid,
        text: &ProfileText,
        actor: &Actor,
    ) -> Result<ProfileChange, StoreError> {
        self.try_create_profile(profile_id, text, actor)
            .await
            .map_err(StoreError::of("create_profile"))
    }

    async fn try_create_profile(
        &self,
        profile_id: Uuid,
        text: &ProfileText,
        actor: &Actor,
    ) -> Result<ProfileChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // Its one row makes those who add wait for each other: the count holds.
        sqlx::query!(
            "-- Store::create_profile.lock
            select from configuration_revision for no key update"
        )
        .fetch_all(&mut *transaction)
        .await?;
        let known = sqlx::query_scalar!(
            r#"-- Store::create_profile.count
            select count(*) as "count!" from profiles"#
        )
        .fetch_one(&mut *transaction)
        .await?;
        if known >= MAX_PROFILES {
            return Ok(ProfileChange::TooMany);
        }
        let made = sqlx::query!(
            "-- Store::create_profile
            insert into profiles (profile_id, name, selector, priority, configuration)
            values ($1, $2, $3, $4, $5) on conflict (name) do nothing",
            profile_id,
            text.name,
            text.selector,
            text.priority,
            text.configuration,
        )
        .execute(&mut *transaction)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(ProfileChange::NameTaken);
        }
        let detail = json!({ "to": audited(text) });
        note(&mut transaction, actor, "profile.create", profile_id, detail).await?;
        transaction.commit().await?;
        Ok(ProfileChange::Done(1))
    }

    /// Replaces a profile, if it has the version `expected`; none: whatever it has.
    pub async fn replace_profile(
        &self,
        profile_id: Uuid,
        expected: Option<i32>,
        text: &ProfileText,
        actor: &Actor,
    ) -> Result<ProfileChange, StoreError> {
        match self.try_replace_profile(profile_id, expected, text, actor).await {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Ok(ProfileChange::NameTaken)
            }
            done => done.map_err(StoreError::of("replace_profile")),
        }
    }

    async fn try_replace_profile(
        &self,
        profile_id: Uuid,
        expected: Option<i32>,
        text: &ProfileText,
        actor: &Actor,
    ) -> Result<ProfileChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let before = match locked(&mut transaction, profile_id, expected).await? {
            Ok(before) => before,
            Err(refused) => return Ok(refused),
        };
        let version = sqlx::query_scalar!(
            "-- Store::replace_profile
            update profiles set name = $2, selector = $3, priority = $4, configuration = $5,
                version = version + 1, updated_at = now()
            where profile_id = $1 returning version",
            profile_id,
            text.name,
            text.selector,
            text.priority,
            text.configuration,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let detail = json!({ "from": before, "to": audited(text) });
        note(&mut transaction, actor, "profile.replace", profile_id, detail).await?;
        transaction.commit().await?;
        Ok(ProfileChange::Done(version))
    }

    /// Removes a profile, if it has the version `expected`; none: whatever it has.
    pub async fn delete_profile(
        &self,
        profile_id: Uuid,
        expected: Option<i32>,
        actor: &Actor,
    ) -> Result<ProfileChange, StoreError> {
        self.try_delete_profile(profile_id, expected, actor)
            .await
            .map_err(StoreError::of("delete_profile"))
    }

    async fn try_delete_profile(
        &self,
        profile_id: Uuid,
        expected: Option<i32>,
        actor: &Actor,
    ) -> Result<ProfileChange, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let before = match locked(&mut transaction, profile_id, expected).await? {
            Ok(before) => before,
            Err(refused) => return Ok(refused),
        };
        let version = sqlx::query_scalar!(
            "-- Store::delete_profile
            delete from profiles where profile_id = $1 returning version",
            profile_id
        )
        .fetch_one(&mut *transaction)
        .await?;
        let detail = json!({ "from": before });
        note(&mut transaction, actor, "profile.delete", profile_id, detail).await?;
        transaction.commit().await?;
        Ok(ProfileChange::Done(version))
    }
}

/// Locks a profile that has the version `expected`: what the audit is to say that it was.
async fn locked(
    transaction: &mut PgTransaction<'_>,
    profile_id: Uuid,
    expected: Option<i32>,
) -> Result<Result<Value, ProfileChange>, sqlx::Error> {
    let row = sqlx::query!(
        "-- Store::locked_profile
        select name, selector, priority, configuration, version from profiles
        where profile_id = $1 for update",
        profile_id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(Err(ProfileChange::NoProfile)) };
    if expected.is_some_and(|expected| expected != row.version) {
        return Ok(Err(ProfileChange::Stale));
    }
    let (name, selector, priority) = (row.name, row.selector, row.priority);
    Ok(Ok(audited(&ProfileText { name, selector, priority, configuration: row.configuration })))
}

fn audited(text: &ProfileText) -> Value {
    json!({
        "name": text.name,
        "selector": text.selector,
        "priority": text.priority,
        "configuration": text.configuration,
    })
}

async fn note(
    transaction: &mut PgTransaction<'_>,
    actor: &Actor,
    action: &str,
    profile_id: Uuid,
    detail: Value,
) -> Result<(), sqlx::Error> {
    record(transaction, actor, action, ("profile", &profile_id.to_string()), detail).await
}
