#!/bin/sh
# Draw the secrets of the profile `scale`, each into a file of its own; those that are there stay.
#   deploy/compose/secrets.sh           then: docker compose --profile scale up --build --detach
# Containers read the files under other users' numbers, so every user may read them; what keeps the
# users of this machine away is the folder, which only its owner may enter.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"

write() { # NAME, with the text on standard input
  if [ -s "$folder/$1" ]; then
    cat >/dev/null
  else
    cat >"$folder/$1"
    chmod 444 "$folder/$1"
    echo "drew $folder/$1"
  fi
}

draw() {
  openssl rand -hex 24 | tr -d '\n'
}

draw | write admin_token
draw | write grafana_password
draw | write postgres_password
password=$(cat "$folder/postgres_password")
printf '"pacesetter" "%s"\n' "$password" | write pgbouncer_users
printf 'postgresql+psycopg://pacesetter:%s@pgbouncer:6432/pacesetter' "$password" | write database_url
