-- Sessions of the web page: a browser shows a random token by cookie, and is who logged in with the
-- API key for as long as both live. Known to every replica; only the token's hash is stored.
create table operator_sessions (
    token_sha256 bytea primary key check (octet_length(token_sha256) = 32),
    api_key_id   uuid not null references api_keys,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz not null
);
create index operator_sessions_expires_at on operator_sessions (expires_at);
