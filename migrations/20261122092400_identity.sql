-- Identity for life: certificates that replace one another, proofs that count once, hosts that wait
-- for an operator or were set aside by one, and who did that.

-- `pending`: issued to a host that has not used it yet; the active one stays good until it does.
-- `superseded`: another one took its place; good for a day more, for a host that crashed in between.
alter table host_certificates
    drop constraint host_certificates_status_check,
    add constraint host_certificates_status_check
        check (status in ('pending', 'active', 'superseded', 'revoked')),
    add column superseded_at timestamptz,           -- null also for a superseded one that was never used
    add column revoked_at timestamptz;
create unique index host_certificates_one_active on host_certificates (host_id) where status = 'active';
create unique index host_certificates_one_pending on host_certificates (host_id) where status = 'pending';

-- A proof of an old key counts once. Rows older than the nonces live are of no use and removed.
create table recovery_nonces (
    nonce   uuid primary key,
    used_at timestamptz not null default now()
);

-- `pending`: enrolled by a token that asks for approval. `quarantined`: keeps its identity, and its
-- reports wait on the host. `decommissioned`: a tombstone; its key is never accepted again.
alter table hosts
    drop constraint hosts_lifecycle_check,
    add constraint hosts_lifecycle_check
        check (lifecycle in ('pending', 'active', 'quarantined', 'decommissioned')),
    add column lifecycle_changed_at timestamptz not null default now(),
    add column lifecycle_reason text;
alter table enrollment_tokens add column approval_needed boolean not null default false;

-- Every change an operator makes, written in the transaction that makes it.
create table audit_events (
    event_id    uuid primary key,                   -- UUIDv7: sorts by time
    at          timestamptz not null default now(),
    actor       text not null,                      -- `api_key:<id>`, `cli` or `server`
    actor_name  text,                               -- what the key was called then
    action      text not null,                      -- such as `host.decommission`
    object_type text not null,
    object_id   text not null,
    detail      jsonb not null default '{}'
);
create index audit_events_object on audit_events (object_id, event_id desc);
