#!/bin/sh
# Run once by PostgreSQL's image: a user and a database for each service, none of which can read another's.
set -eu

create() { # USER PASSWORD DATABASE…
    user=$1 password=$2
    shift 2
    psql --set ON_ERROR_STOP=1 --username postgres --set user="$user" --set password="$password" <<'SQL'
CREATE USER :"user" PASSWORD :'password';
SQL
    for database; do
        psql --set ON_ERROR_STOP=1 --username postgres --set user="$user" --set database="$database" <<'SQL'
CREATE DATABASE :"database" OWNER :"user";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
    done
}

create mlflow "$MLFLOW_DB_PASSWORD" mlflow mlflow_users
create prefect "$PREFECT_DB_PASSWORD" prefect
create studies "$STUDIES_PASSWORD" studies
