# Run once by the image of TimescaleDB, when its volume is empty: the server's role and database, and the role that
# Grafana reads with. Neither is a superuser. PROCFLEET_SECRETS is for tests.
PROCFLEET_SECRETS=${PROCFLEET_SECRETS:-/run/secrets} psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
\set password `cat "$PROCFLEET_SECRETS/database-password"`
\set reader `cat "$PROCFLEET_SECRETS/grafana-database-password"`
create role procfleet login createrole password :'password';
create database procfleet owner procfleet;
-- Its creator may change its settings, which `migrate` does.
set role procfleet;
create role procfleet_reader login password :'reader';
SQL
