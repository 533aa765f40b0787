-- +goose Up
-- The whole path of one payout: who may ask, where to, who agreed, what was
-- sent, what came back, and the record of all of it. Every rule of money is a
-- constraint here as well as in code: the database is the last guard.

-- Roles. Passwords are set by `sluice migrate` from its own configuration;
-- without one a role can sign in only over a socket that trusts it.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_api') THEN
        CREATE ROLE sluice_api LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_worker') THEN
        CREATE ROLE sluice_worker LOGIN;
    END IF;
END
$$;
-- +goose StatementEnd

-- An exchange account with its own key, limits and worker queue.
CREATE TABLE accounts (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,31}$'), -- also a River queue name
    created_at timestamptz NOT NULL
);

-- Programs that may request payouts. They can never vote.
CREATE TABLE service_clients (
    name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
    public_key  bytea NOT NULL CHECK (octet_length(public_key) = 32), -- Ed25519
    accounts    text[] NOT NULL, -- the accounts it may pay from
    scopes      text[] NOT NULL, -- the most that a token of it may carry
    created_at  timestamptz NOT NULL,
    disabled_at timestamptz
);

CREATE TABLE people (
    id           uuid PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,63}$'),
    display_name text NOT NULL CHECK (display_name <> '' AND length(display_name) <= 100),
    roles        text[] NOT NULL CHECK (roles <@ ARRAY['requester', 'approver', 'admin', 'auditor']),
    created_at   timestamptz NOT NULL,
    disabled_at  timestamptz
);

CREATE TABLE passkeys (
    id          bytea PRIMARY KEY,          -- WebAuthn credential id
    person_id   uuid NOT NULL REFERENCES people,
    public_key  bytea NOT NULL,             -- COSE key
    sign_count  bigint NOT NULL CHECK (sign_count >= 0), -- stays 0 for synced passkeys
    transports  text[] NOT NULL,
    backup_eligible boolean NOT NULL,
    software    boolean NOT NULL,           -- a demo passkey; refused everywhere outside `sluice dev`
    label       text NOT NULL CHECK (length(label) <= 100),
    created_at  timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX passkeys_person ON passkeys (person_id);

-- One-time links by which a person enrols a passkey. Only the hash is kept.
CREATE TABLE invitations (
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    person_id  uuid NOT NULL REFERENCES people,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

-- Browser sessions (alexedwards/scs). Tokens are stored hashed.
CREATE TABLE sessions (
    token  text PRIMARY KEY,
    data   bytea NOT NULL,
    expiry timestamptz NOT NULL
);
CREATE INDEX sessions_expiry ON sessions (expiry);

-- The mirror of the exchange's API whitelist. Address and memo are kept byte
-- for byte: the exchange compares text, and so do we.
CREATE TABLE destinations (
    id          uuid PRIMARY KEY,
    version     integer NOT NULL DEFAULT 1 CHECK (version > 0), -- sealed into every proposal
    account     text NOT NULL REFERENCES accounts,
    method      text NOT NULL CHECK (method IN ('on_chain', 'inter_user')),
    asset       text NOT NULL CHECK (asset <> ''),
    chain       text NOT NULL,
    address     text NOT NULL CHECK (address <> ''),
    memo        text NOT NULL,
    label       text NOT NULL CHECK (length(label) <= 100),
    state       text NOT NULL CHECK (state IN ('active', 'quarantined', 'removed')),
    reason      text NOT NULL DEFAULT '', -- why it is quarantined
    attested_by text NOT NULL,
    attested_at timestamptz NOT NULL,
    accepted_at timestamptz,               -- when the exchange last took a withdrawal to it
    CONSTRAINT chain_only_on_chain CHECK ((chain = '') = (method = 'inter_user')),
    CONSTRAINT reason_when_quarantined CHECK (state <> 'quarantined' OR reason <> '')
);
CREATE UNIQUE INDEX destinations_listed_once ON destinations
    (account, method, asset, chain, address, memo) WHERE state <> 'removed';
CREATE INDEX destinations_address ON destinations (address);

-- What the exchange says of an asset on a chain, written by the worker. A row's
-- version changes only when what it says changes, so that intake can prove in
-- the statement that inserts that what it checked still holds.
CREATE TABLE exchange_chains (
    asset         text NOT NULL,
    chain         text NOT NULL,
    version       integer NOT NULL DEFAULT 1,
    asset_enabled boolean NOT NULL,
    chain_enabled boolean NOT NULL,
    inter_user_enabled boolean NOT NULL,
    min_amount    numeric NOT NULL CHECK (min_amount >= 0 AND min_amount < 'Infinity'),
    fee           numeric NOT NULL CHECK (fee >= 0 AND fee < 'Infinity'),
    precision     integer NOT NULL CHECK (precision BETWEEN 0 AND 18),
    memo_required boolean NOT NULL,
    PRIMARY KEY (asset, chain)
);

-- When the worker last read something of the exchange, for all to see its age.
CREATE TABLE exchange_reads (
    account text NOT NULL,
    what    text NOT NULL CHECK (what IN ('config', 'balances', 'clock', 'withdrawals')),
    at      timestamptz NOT NULL,
    detail  text NOT NULL DEFAULT '',
    PRIMARY KEY (account, what)
);

CREATE TABLE exchange_balances (
    account   text NOT NULL REFERENCES accounts,
    asset     text NOT NULL,
    available numeric NOT NULL CHECK (available >= 0 AND available < 'Infinity'),
    frozen    numeric NOT NULL CHECK (frozen >= 0 AND frozen < 'Infinity'),
    PRIMARY KEY (account, asset)
);

-- Where a withdrawal may stand and which process may move it on. Package withdraw
-- lists the same moves; a test compares the two.
CREATE TABLE withdrawal_moves (
    leaves text NOT NULL,
    enters text NOT NULL,
    api    boolean NOT NULL, -- may the api make this move?
    worker boolean NOT NULL, -- may the worker?
    PRIMARY KEY (leaves, enters)
);
INSERT INTO withdrawal_moves (leaves, enters, api, worker) VALUES
    ('pending',    'approved',   true,  false),
    ('pending',    'rejected',   true,  false),
    ('pending',    'cancelled',  true,  false),
    ('pending',    'expired',    true,  true),
    ('approved',   'submitting', false, true),
    ('approved',   'cancelled',  true,  false),
    ('approved',   'expired',    false, true),
    ('approved',   'held',       false, true),
    ('submitting', 'submitted',  false, true),
    ('submitting', 'unknown',    false, true),
    ('submitting', 'failed',     false, true),
    ('submitting', 'held',       false, true),
    ('unknown',    'submitted',  false, true),
    ('unknown',    'absent',     false, true),
    ('unknown',    'held',       false, true),
    ('absent',     'approved',   true,  false),
    ('absent',     'cancelled',  true,  false),
    ('submitted',  'completed',  false, true),
    ('submitted',  'failed',     false, true),
    ('submitted',  'held',       false, true),
    ('held',       'submitted',  false, true),
    ('held',       'failed',     false, true),
    ('held',       'completed',  false, true),
    ('held',       'cancelled',  true,  false);

CREATE TABLE withdrawals (
    id              uuid PRIMARY KEY,
    requester       text NOT NULL CHECK (requester ~ '^(client|person):.+$'),
    reference       text NOT NULL CHECK (reference <> '' AND length(reference) <= 128),
    idempotency_key text NOT NULL CHECK (idempotency_key <> '' AND length(idempotency_key) <= 255),
    body_hash       bytea NOT NULL CHECK (octet_length(body_hash) = 32),
    answer_status   smallint NOT NULL, -- the answer to the first request with this key, for ever
    answer          bytea NOT NULL,
    account         text NOT NULL REFERENCES accounts,
    method          text NOT NULL CHECK (method IN ('on_chain', 'inter_user')),
    asset           text NOT NULL CHECK (asset <> ''),
    chain           text NOT NULL,
    address         text NOT NULL CHECK (address <> ''),
    memo            text NOT NULL,
    amount          numeric NOT NULL, -- net: what the receiver gets, in asset
    max_fee         numeric,          -- in asset; refuse to pay more to the exchange
    purpose         text NOT NULL CHECK (length(purpose) <= 500),
    destination_id  uuid REFERENCES destinations,
    state           text NOT NULL,
    round           integer NOT NULL DEFAULT 1 CHECK (round > 0), -- rises when fresh votes are asked for
    digest          bytea CHECK (octet_length(digest) = 32),      -- of the proposal of this round
    expires_at      timestamptz,
    reason_code     text NOT NULL DEFAULT '', -- why it is refused, held, failed, absent or waiting
    reason          text NOT NULL DEFAULT '',
    fix             text NOT NULL DEFAULT '',
    next_step_at    timestamptz, -- when the sweep looks at it again, in states that the worker owns
    exchange_id     bigint,      -- the exchange's withdraw_id
    exchange_status text NOT NULL DEFAULT '',
    fee             numeric,     -- as charged by the exchange
    fee_asset       text NOT NULL DEFAULT '',
    tx_id           text NOT NULL DEFAULT '',
    confirmations   bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT state_known CHECK (state IN ('refused', 'pending', 'approved', 'submitting', 'unknown',
        'absent', 'submitted', 'held', 'completed', 'failed', 'rejected', 'cancelled', 'expired')),
    -- NaN is above every number in Postgres: without the upper bound it would pass.
    CONSTRAINT amount_positive CHECK (amount > 0 AND amount < 1e24 AND scale(amount) <= 18),
    CONSTRAINT max_fee_sane CHECK (max_fee >= 0 AND max_fee < 1e24),
    CONSTRAINT fee_sane CHECK (fee >= 0 AND fee < 1e24),
    CONSTRAINT chain_only_on_chain CHECK ((chain = '') = (method = 'inter_user')),
    -- Whatever may be paid has been sealed, has an end, and goes to a listed destination.
    CONSTRAINT sealed_unless_refused CHECK (state = 'refused'
        OR (digest IS NOT NULL AND expires_at IS NOT NULL AND destination_id IS NOT NULL AND max_fee IS NOT NULL)),
    CONSTRAINT reason_when_stopped CHECK (state NOT IN ('refused', 'held', 'absent', 'failed')
        OR (reason_code <> '' AND reason <> '')),
    CONSTRAINT exchange_id_when_sent CHECK (state NOT IN ('submitted', 'completed') OR exchange_id IS NOT NULL),
    -- Every state that the worker owns has a clock.
    CONSTRAINT clock_when_owned CHECK (state NOT IN ('approved', 'submitting', 'unknown', 'submitted')
        OR next_step_at IS NOT NULL)
);
CREATE UNIQUE INDEX withdrawals_key_once ON withdrawals (requester, idempotency_key);
-- A refused request does not use up its reference: the list is mended, the same payout is asked for again.
CREATE UNIQUE INDEX withdrawals_reference_once ON withdrawals (requester, reference) WHERE state <> 'refused';
CREATE UNIQUE INDEX withdrawals_exchange_id_once ON withdrawals (account, exchange_id) WHERE exchange_id IS NOT NULL;
-- Lists page by id, which is made in order of time (UUID version 7).
CREATE INDEX withdrawals_state ON withdrawals (state, id DESC);
CREATE INDEX withdrawals_requester ON withdrawals (requester, id DESC);
CREATE INDEX withdrawals_address ON withdrawals (address, id DESC);
CREATE INDEX withdrawals_worker ON withdrawals (account, next_step_at)
    WHERE state IN ('approved', 'submitting', 'unknown', 'submitted', 'held');
CREATE INDEX withdrawals_expiry ON withdrawals (expires_at) WHERE state IN ('pending', 'approved');

-- +goose StatementBegin
CREATE FUNCTION withdrawals_guard_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- What was asked for never changes; a different payout is a different request.
    IF (NEW.id, NEW.requester, NEW.reference, NEW.idempotency_key, NEW.body_hash, NEW.answer_status, NEW.answer,
        NEW.account, NEW.method, NEW.asset, NEW.chain, NEW.address, NEW.memo, NEW.amount, NEW.max_fee,
        NEW.purpose, NEW.destination_id, NEW.created_at)
       IS DISTINCT FROM
       (OLD.id, OLD.requester, OLD.reference, OLD.idempotency_key, OLD.body_hash, OLD.answer_status, OLD.answer,
        OLD.account, OLD.method, OLD.asset, OLD.chain, OLD.address, OLD.memo, OLD.amount, OLD.max_fee,
        OLD.purpose, OLD.destination_id, OLD.created_at) THEN
        RAISE EXCEPTION 'withdrawal %: what was asked for cannot be changed', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.exchange_id IS NOT NULL AND NEW.exchange_id IS DISTINCT FROM OLD.exchange_id THEN
        RAISE EXCEPTION 'withdrawal %: the exchange id cannot be changed', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.state <> OLD.state AND NOT EXISTS (
        SELECT FROM public.withdrawal_moves m -- by its full name: a temporary table of that name would come first
        WHERE m.leaves = OLD.state AND m.enters = NEW.state
          AND (m.api OR current_user <> 'sluice_api')
          AND (m.worker OR current_user <> 'sluice_worker')) THEN
        RAISE EXCEPTION 'withdrawal %: % may not move it from % to %', OLD.id, current_user, OLD.state, NEW.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER withdrawals_guard_move BEFORE UPDATE ON withdrawals
    FOR EACH ROW EXECUTE FUNCTION withdrawals_guard_move();

-- A request begins as refused or pending: an insert must not skip the moves.
-- +goose StatementBegin
CREATE FUNCTION withdrawals_guard_birth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'withdrawal %: % may not begin it as %', NEW.id, current_user, NEW.state USING ERRCODE = 'check_violation';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER withdrawals_guard_birth BEFORE INSERT ON withdrawals
    FOR EACH ROW WHEN (NEW.state NOT IN ('refused', 'pending') AND current_user = 'sluice_api')
    EXECUTE FUNCTION withdrawals_guard_birth();

-- What people sign. One per round: a later round is a new proposal with a new
-- digest, so that old votes can never count for it.
CREATE TABLE proposals (
    digest        bytea PRIMARY KEY CHECK (digest = sha256(sealed)),
    sealed        bytea NOT NULL, -- canonical JSON (RFC 8785)
    withdrawal_id uuid NOT NULL REFERENCES withdrawals,
    round         integer NOT NULL CHECK (round > 0),
    created_at    timestamptz NOT NULL,
    UNIQUE (withdrawal_id, round)
);

-- Nonces that the server issued for a vote. Each is used once.
CREATE TABLE vote_challenges (
    nonce      bytea PRIMARY KEY CHECK (octet_length(nonce) = 32),
    digest     bytea NOT NULL REFERENCES proposals,
    person_id  uuid NOT NULL REFERENCES people,
    decision   text NOT NULL CHECK (decision IN ('approve', 'reject')),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX vote_challenges_expiry ON vote_challenges (expires_at);

CREATE TABLE votes (
    id                 uuid PRIMARY KEY,
    digest             bytea NOT NULL REFERENCES proposals,
    person_id          uuid NOT NULL REFERENCES people,
    passkey_id         bytea NOT NULL REFERENCES passkeys,
    decision           text NOT NULL CHECK (decision IN ('approve', 'reject')),
    reason             text NOT NULL DEFAULT '' CHECK (length(reason) <= 500),
    nonce              bytea NOT NULL UNIQUE CHECK (octet_length(nonce) = 32), -- replay guard
    authenticator_data bytea NOT NULL,
    client_data        bytea NOT NULL,
    signature          bytea NOT NULL,
    cast_at            timestamptz NOT NULL,
    UNIQUE (digest, person_id) -- nobody votes twice
);

-- Who may use an account's key right now. The fence rises with every new
-- holder; an attempt can only be written under the fence of the moment, so a
-- worker that lost its lease cannot send.
CREATE TABLE account_leases (
    account    text PRIMARY KEY REFERENCES accounts,
    fence      bigint NOT NULL,
    holder     uuid NOT NULL,
    expires_at timestamptz NOT NULL -- by the database's clock, the one clock that all workers share
);

-- One signed submission and what is known of it. The row is committed before
-- the bytes are sent, so whatever breaks afterwards leaves something to look up.
CREATE TABLE attempts (
    id            uuid PRIMARY KEY,
    withdrawal_id uuid NOT NULL REFERENCES withdrawals,
    digest        bytea NOT NULL REFERENCES proposals, -- the approval that it rests on
    number        integer NOT NULL CHECK (number > 0),
    fence         bigint NOT NULL,
    account       text NOT NULL,
    asset         text NOT NULL,
    chain         text NOT NULL,
    address       text NOT NULL,
    memo          text NOT NULL,
    amount        numeric NOT NULL CHECK (amount > 0 AND amount < 1e24),
    remark        text NOT NULL UNIQUE CHECK (length(remark) <= 50),
    body          bytea NOT NULL,
    signed_at     timestamptz NOT NULL,  -- T, by the exchange's clock
    window_ms     integer NOT NULL CHECK (window_ms > 0), -- W: the exchange refuses the bytes after T + W
    outcome       text NOT NULL CHECK (outcome IN ('open', 'unknown', 'accepted', 'not_accepted', 'absent')),
    exchange_id   bigint,
    http_status   integer NOT NULL DEFAULT 0,
    code          integer NOT NULL DEFAULT 0,
    message       text NOT NULL DEFAULT '',
    response      bytea NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL,
    decided_at    timestamptz,
    UNIQUE (withdrawal_id, number),
    CONSTRAINT id_when_accepted CHECK ((outcome = 'accepted') = (exchange_id IS NOT NULL)),
    CONSTRAINT decided_unless_open CHECK ((outcome = 'open') = (decided_at IS NULL))
);
-- The last guard against paying twice.
CREATE UNIQUE INDEX attempts_one_live ON attempts (withdrawal_id)
    WHERE outcome IN ('open', 'unknown', 'accepted');
-- A row found at the exchange can then belong to one attempt only.
CREATE UNIQUE INDEX attempts_one_twin ON attempts (account, asset, chain, address, memo, amount)
    WHERE outcome IN ('open', 'unknown');
CREATE UNIQUE INDEX attempts_claim_once ON attempts (account, exchange_id) WHERE exchange_id IS NOT NULL;

-- +goose StatementBegin
CREATE FUNCTION attempts_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.outcome IN ('accepted', 'not_accepted', 'absent') THEN
        RAISE EXCEPTION 'attempt %: its outcome is settled', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.id, NEW.withdrawal_id, NEW.digest, NEW.number, NEW.fence, NEW.account, NEW.asset, NEW.chain, NEW.address,
        NEW.memo, NEW.amount, NEW.remark, NEW.body, NEW.signed_at, NEW.window_ms, NEW.created_at)
       IS DISTINCT FROM
       (OLD.id, OLD.withdrawal_id, OLD.digest, OLD.number, OLD.fence, OLD.account, OLD.asset, OLD.chain, OLD.address,
        OLD.memo, OLD.amount, OLD.remark, OLD.body, OLD.signed_at, OLD.window_ms, OLD.created_at) THEN
        RAISE EXCEPTION 'attempt %: what was sent cannot be changed', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER attempts_guard BEFORE UPDATE ON attempts
    FOR EACH ROW EXECUTE FUNCTION attempts_guard();

-- What reconciliation read while it looked for an attempt.
CREATE TABLE attempt_reads (
    id         uuid PRIMARY KEY,
    attempt_id uuid NOT NULL REFERENCES attempts,
    at         timestamptz NOT NULL,  -- by the exchange's clock
    found      boolean NOT NULL,
    after_quiet boolean NOT NULL,     -- only reads after the quiet period count towards absence
    pages      bytea[] NOT NULL       -- the answers as read
);
CREATE INDEX attempt_reads_attempt ON attempt_reads (attempt_id);

-- The record. Rows are added in the transaction that makes the change and never
-- altered. They get dense leaf numbers afterwards, from one sequencer, so that
-- appending takes no lock.
CREATE TABLE audit_events (
    id            uuid PRIMARY KEY,
    txid          xid8 NOT NULL DEFAULT pg_current_xact_id(), -- lets the sequencer skip rows that may still be joined by older ones
    at            timestamptz NOT NULL,
    actor         text NOT NULL,
    action        text NOT NULL,
    withdrawal_id uuid,
    body          bytea NOT NULL -- canonical JSON: what the leaf hash is taken over; the columns repeat it for search
);
CREATE INDEX audit_events_txid ON audit_events (txid, id);
CREATE INDEX audit_events_withdrawal ON audit_events (withdrawal_id, id) WHERE withdrawal_id IS NOT NULL;

-- Who the voters of a receipt are.
CREATE INDEX audit_events_roster ON audit_events (action, id) WHERE withdrawal_id IS NULL;

CREATE TABLE audit_leaves (
    seq      bigint PRIMARY KEY CHECK (seq >= 0),
    event_id uuid NOT NULL UNIQUE REFERENCES audit_events
);

-- Hashes of the Merkle tree, by golang.org/x/mod/sumdb/tlog's stored-hash index.
CREATE TABLE audit_hashes (
    idx  bigint PRIMARY KEY CHECK (idx >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);

CREATE TABLE checkpoints (
    size bigint PRIMARY KEY CHECK (size >= 0),
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    note text NOT NULL, -- C2SP signed note over a tlog checkpoint
    at   timestamptz NOT NULL
);

-- +goose StatementBegin
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_leaves FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON proposals FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON votes FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON attempt_reads FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON withdrawals FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON attempts FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- Least privilege. The api cannot write what the exchange said; the worker cannot vote.
GRANT USAGE ON SCHEMA public TO sluice_api, sluice_worker;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO sluice_api, sluice_worker;
REVOKE ALL ON sessions, invitations, vote_challenges FROM sluice_worker;

-- Not txid: with a false one an event could be hidden from the sequencer.
GRANT INSERT (id, at, actor, action, withdrawal_id, body) ON audit_events TO sluice_api, sluice_worker;

GRANT INSERT ON withdrawals, proposals, vote_challenges, votes, passkeys, invitations TO sluice_api;
GRANT UPDATE (state, reason_code, reason, fix, next_step_at, updated_at) ON withdrawals TO sluice_api;
GRANT UPDATE (used_at) ON vote_challenges, invitations TO sluice_api;
GRANT UPDATE (sign_count, last_used_at) ON passkeys TO sluice_api;
GRANT INSERT, UPDATE, DELETE ON sessions TO sluice_api;
GRANT DELETE ON vote_challenges TO sluice_api;

GRANT UPDATE (state, round, digest, expires_at, reason_code, reason, fix, next_step_at, exchange_id, exchange_status,
    fee, fee_asset, tx_id, confirmations, updated_at) ON withdrawals TO sluice_worker;
GRANT INSERT ON proposals, attempts, attempt_reads, audit_leaves, audit_hashes, checkpoints TO sluice_worker;
GRANT UPDATE (outcome, exchange_id, http_status, code, message, response, decided_at) ON attempts TO sluice_worker;
GRANT INSERT, UPDATE ON account_leases, exchange_chains, exchange_reads, exchange_balances TO sluice_worker;
GRANT UPDATE (state, reason, version, accepted_at) ON destinations TO sluice_worker;

-- +goose Down
-- Going back would drop the record of payouts. Restore a backup instead.
SELECT 1 / 0 AS the_record_is_not_dropped;
