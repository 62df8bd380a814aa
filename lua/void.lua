--[[ void: frees the hold of a call that consumed nothing and appends the settlement to the outbox. A hold that had
     lapsed is corrected instead: what the lapse charged is given back, once.
     KEYS   1 shard  2 account  3 hold  4 leases  5 outbox  6… caps, one for each level the hold is counted in
     ARGV   1 epoch  2 request_id  3 account_id  4 data …: day and month for each key of caps
     Reply  {"VOIDED", balance, held, event_id} | {"CONFLICT"} | {"MISSING"} | {"UNLOADED"} | {"EPOCH", current}
     Safe to retry: a voided hold answers with the first event id; a capture before is a CONFLICT. ]]
return settle("void", "voided", "VOIDED", "0", ARGV[4])
