-- Answers kept for a day for whoever repeats a request with the same `Idempotency-Key`. They may hold
-- secrets shown once, so they are sealed with a key made of what only the caller knows.
create table idempotency_keys (
    api_key_id     uuid not null references api_keys,
    key_sha256     bytea not null check (octet_length(key_sha256) = 32),
    request_sha256 bytea not null check (octet_length(request_sha256) = 32),
    begun_at       timestamptz not null default now(),
    status         smallint,
    sealed_answer  bytea,
    primary key (api_key_id, key_sha256)
);
create index idempotency_keys_begun_at on idempotency_keys (begun_at);
