#!/bin/sh
# Buys credits through Stripe's test mode and gives the money back: see deploy/runbook.md.
#
#   stripe_smoke.sh URL KEY [DATA]
#
# URL is the gateway's, such as https://gateway.example.com; KEY is an API key of an account for tests. DATA is the data
# directory of a running `tollgate up`; without it, the environment must name both databases and hold STRIPE_SECRET_KEY.
# TOLLGATE is the command, if it is not `tollgate`. A person pays on the page; the simulated Stripe is paid by itself.
set -eu

url=${1:?the gateway\'s URL} key=${2:?an API key} data=${3:-}
paid_within_s=${PAID_WITHIN_S:-600} told_within_s=60

fail() { echo "FAILED: $*" >&2; exit 1; }
# `command`, since the function has the command's name.
tollgate() { command ${TOLLGATE:-tollgate} "$@" ${data:+--data "$data"} --json; }
# The value that a path such as purchases.0.id leads to in the JSON on stdin; nothing if there is none.
value() {
    python3 -c '
import json, sys
found = json.loads(sys.stdin.read() or "{}")
for name in sys.argv[1].split("."):
    found = found[int(name)] if isinstance(found, list) else found.get(name)
print("" if found is None else found)' "$1"
}
until_within() { # SECONDS COMMAND…
    left=$1; shift
    until "$@"; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1)); sleep 1
    done
}
shows() { [ "$(tollgate purchases show "$purchase" | value "$1")" = "$2" ]; }
has_no_more_to_do() { [ "$(tollgate stripe events list --state "$1" | value events.0.id 2>/dev/null)" = "" ]; }

case ${STRIPE_SECRET_KEY:-} in
    sk_live_* | rk_live_*) fail "STRIPE_SECRET_KEY is a live one: this would move real money" ;;
esac

tollgate stripe events list >/dev/null || fail "${TOLLGATE:-tollgate} does not reach the databases of the gateway"

echo "1. A purchase begins"
bought=$(curl -fsS -X POST "$url/api/purchases" -H "Authorization: Bearer $key" \
    -H "Idempotency-Key: smoke-$(date +%s)-$$" -H 'Content-Type: application/json' -d '{"package": "starter"}') ||
    fail "the gateway at $url sells nothing"
purchase=$(echo "$bought" | value id) page=$(echo "$bought" | value checkoutUrl)

case $page in
    https://checkout.stripe.com/*)
        echo "2. Pay with card 4242 4242 4242 4242 within $paid_within_s s on"
        echo "   $page" ;;
    *)
        echo "2. The simulated Stripe is paid"
        curl -fsS -o /dev/null -X POST "${page%/c/pay/*}/_sandbox/checkout_sessions/${page##*/}/pay" \
            -H 'Content-Type: application/json' -d '{}' ;;
esac
until_within "$paid_within_s" shows state paid || fail "purchase $purchase is not paid; did Stripe's webhooks arrive?"

echo "3. The credit is in the books, and a webhook brought it"
shows credits 5000 || fail "purchase $purchase granted other than 5000 credits"
tollgate stripe events list --type payment_intent.succeeded | grep -q '"source": "webhook"' ||
    fail "no webhook came: is the endpoint registered at Stripe, and is its secret ours?"

echo "4. Every event again: nothing changes"
tollgate stripe events replay --since "$(date -u +%Y-%m-%d)" >/dev/null
until_within "$told_within_s" has_no_more_to_do received || fail "the workers handle no events"
shows credits 5000 || fail "a replay changed purchase $purchase"

echo "5. The money goes back"
tollgate refunds create "$purchase" --reason "smoke test" >/dev/null
until_within "$told_within_s" shows refunded '$5.00' || fail "the refund of purchase $purchase is not in the books"

echo "6. No event is given up, and the books are right"
has_no_more_to_do dead || fail "events are dead: tollgate stripe events list --state dead"
tollgate audit >/dev/null || fail "tollgate audit found something"

echo "All is well with Stripe: purchase $purchase was paid, granted and refunded."
