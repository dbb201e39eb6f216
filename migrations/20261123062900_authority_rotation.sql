-- Authorities take turns. `next`: trusted already, signs nothing yet. `active`: signs. `retired`: signs
-- no more, and is trusted until what it signed was replaced. `removed`: history.
alter table certificate_authorities
    add column state text not null default 'active'
        check (state in ('next', 'active', 'retired', 'removed')),
    add column state_changed_at timestamptz not null default now(),
    -- The same keys certified by those before them, newest first: the way for hosts that missed a rotation.
    add column bridge_pem text not null default '';
update certificate_authorities set state = 'removed' where not active;
drop index certificate_authorities_one_active;
alter table certificate_authorities drop column active;
create unique index certificate_authorities_one_active on certificate_authorities (purpose) where state = 'active';
create unique index certificate_authorities_one_next on certificate_authorities (purpose) where state = 'next';
create unique index certificate_authorities_one_retired on certificate_authorities (purpose) where state = 'retired';

-- Who signed it: says what a retired authority is still needed for.
alter table host_certificates add column authority_id uuid references certificate_authorities;
update host_certificates set authority_id =
    (select authority_id from certificate_authorities where purpose = 'client' and state = 'active');

-- The set of authorities that the host said it keeps; null: it never said.
alter table hosts add column trust_id text;
