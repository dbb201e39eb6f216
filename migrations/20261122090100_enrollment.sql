-- What a host shows once, the authorities that sign its certificate, and the operators' keys.

create table enrollment_tokens (
    token_id      uuid primary key,
    name          text not null,
    secret_sha256 bytea not null check (octet_length(secret_sha256) = 32),
    created_at    timestamptz not null default now(),
    expires_at    timestamptz not null,
    revoked_at    timestamptz,
    max_uses      integer check (max_uses > 0),     -- null: as many as wanted until it expires
    uses          integer not null default 0,
    labels        jsonb not null default '{}' check (jsonb_typeof(labels) = 'object'), -- what its hosts begin with
    ephemeral     boolean not null default false,  -- whether its hosts are
    same_machine  boolean not null default false,  -- a machine that enrols again is its silent or stopped host again
    check (expires_at <= created_at + interval '90 days'),
    check (max_uses is null or uses <= max_uses)
);
alter table hosts add foreign key (enrollment_token_id) references enrollment_tokens;

-- One active authority per purpose, whichever replica made it first. Keys are sealed with
-- AES-256-GCM under a key that never enters the database.
create table certificate_authorities (
    authority_id       uuid primary key,
    purpose            text not null check (purpose in ('server', 'client')),
    active             boolean not null default true,
    certificate_pem    text not null,
    spki_sha256        bytea not null check (octet_length(spki_sha256) = 32),
    sealed_private_key bytea not null,
    sealing_key_id     text not null,               -- hex of SHA-256 of the sealing key, first 8 bytes
    not_after          timestamptz not null,
    created_at         timestamptz not null default now()
);
create unique index certificate_authorities_one_active on certificate_authorities (purpose) where active;

create table api_keys (
    api_key_id    uuid primary key,
    name          text not null,
    role          text not null check (role in ('viewer', 'operator', 'admin')),
    scopes        text[],                          -- of the role's; null: all of them
    secret_sha256 bytea not null check (octet_length(secret_sha256) = 32),
    created_at    timestamptz not null default now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz                       -- to the minute
);
