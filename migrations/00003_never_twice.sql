-- +goose Up
-- What stands beside the submission protocol: what the worker has learned of the
-- exchange's habits, withdrawals there that are not ours, the freeze that stops
-- everything, wishes to cancel, and money that is spoken for.

-- What the worker watches of an account at the exchange, by the exchange's clock.
CREATE TABLE account_watch (
    account     text PRIMARY KEY REFERENCES accounts,
    since       timestamptz NOT NULL, -- what the exchange made earlier is from a time before Sluice
    read_until  timestamptz NOT NULL, -- whatever it made earlier has been compared with our attempts
    remark      text NOT NULL DEFAULT 'unproven' CHECK (remark IN ('unproven', 'echoed', 'lost')), -- does the history show our remarks?
    lateness_ms bigint NOT NULL DEFAULT 0 CHECK (lateness_ms >= 0), -- the longest that the history was seen to lack an accepted withdrawal
    CONSTRAINT forwards CHECK (read_until >= since)
);

-- Withdrawals in the exchange's history that no attempt of ours accounts for.
CREATE TABLE foreign_withdrawals (
    account     text NOT NULL REFERENCES accounts,
    exchange_id bigint NOT NULL,
    made_at     timestamptz NOT NULL, -- by the exchange
    method      text NOT NULL,
    asset       text NOT NULL,
    chain       text NOT NULL,
    address     text NOT NULL,
    memo        text NOT NULL,
    net         numeric NOT NULL,
    status      text NOT NULL,
    remark      text NOT NULL,
    attempt_id  uuid REFERENCES attempts, -- of ours, given up as not accepted, under whose remark it was made
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (account, exchange_id)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON foreign_withdrawals FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- While one applies, nothing is sent. Anybody may freeze; only the owner thaws.
CREATE TABLE freezes (
    id          uuid PRIMARY KEY,
    scope       text NOT NULL CHECK (scope IN ('service', 'account', 'asset', 'destination')),
    subject     text NOT NULL, -- of the scope: '' for the service, a name, or a destination's id
    reason_code text NOT NULL CHECK (reason_code <> ''),
    reason      text NOT NULL CHECK (reason <> '' AND length(reason) <= 1000),
    frozen_by   text NOT NULL CHECK (frozen_by <> ''),
    frozen_at   timestamptz NOT NULL,
    thawed_by   text,
    thawed_at   timestamptz,
    thaw_reason text,
    CONSTRAINT subject_of_scope CHECK ((scope = 'service') = (subject = '')),
    CONSTRAINT thawed_whole CHECK (num_nulls(thawed_by, thawed_at, thaw_reason) IN (0, 3))
);
CREATE UNIQUE INDEX freezes_once ON freezes (scope, subject, reason_code) WHERE thawed_at IS NULL;
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON freezes FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- Wishes to cancel what is at the exchange, or may be. The worker passes them on for as
-- long as the exchange can still stop it.
CREATE TABLE cancel_requests (
    withdrawal_id uuid PRIMARY KEY REFERENCES withdrawals,
    asked_by      text NOT NULL CHECK (asked_by <> ''),
    asked_at      timestamptz NOT NULL,
    reason        text NOT NULL CHECK (length(reason) <= 500),
    passed_on_at  timestamptz, -- when the exchange last heard of it
    taken         boolean NOT NULL DEFAULT false, -- the exchange took it; what became of it the history tells
    refused       boolean NOT NULL DEFAULT false, -- the exchange will not
    answer        text NOT NULL DEFAULT '',
    CONSTRAINT one_answer CHECK (NOT (taken AND refused)),
    CONSTRAINT answered_when_asked CHECK (passed_on_at IS NOT NULL OR NOT (taken OR refused))
);
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON cancel_requests FOR EACH STATEMENT EXECUTE FUNCTION append_only();

ALTER TABLE withdrawals
    ADD COLUMN approved_at timestamptz, -- of this round; whoever was approved first has the first claim on the balance
    ADD COLUMN listed_at   timestamptz, -- when the exchange's history first showed it
    ADD COLUMN cancel_asked_at timestamptz; -- when somebody asked to cancel it at the exchange
UPDATE withdrawals SET approved_at = updated_at WHERE state IN ('approved', 'submitting');
ALTER TABLE withdrawals ADD CONSTRAINT order_when_approved CHECK (state NOT IN ('approved', 'submitting') OR approved_at IS NOT NULL);
CREATE INDEX withdrawals_unsent ON withdrawals (account, asset) WHERE state IN ('approved', 'submitting', 'unknown');

-- What was accepted since a balance was read is not missing from it yet.
CREATE INDEX attempts_accepted ON attempts (account, asset, decided_at) WHERE outcome = 'accepted';

-- A late row can prove that what people were asked about again was paid.
INSERT INTO withdrawal_moves (leaves, enters, api, worker) VALUES ('absent', 'held', false, true);

-- The wallet's history and balance at a look, as read: a debit that no row of the
-- withdrawal history explains speaks against absence.
ALTER TABLE attempt_reads ADD COLUMN wallet bytea;

GRANT SELECT ON account_watch, foreign_withdrawals, freezes, cancel_requests TO sluice_api, sluice_worker;
GRANT INSERT, UPDATE ON account_watch TO sluice_worker;
GRANT INSERT ON foreign_withdrawals TO sluice_worker;
GRANT INSERT ON freezes TO sluice_api, sluice_worker;
GRANT INSERT ON cancel_requests TO sluice_api;
GRANT UPDATE (passed_on_at, taken, refused, answer) ON cancel_requests TO sluice_worker;
GRANT UPDATE (approved_at, cancel_asked_at) ON withdrawals TO sluice_api;
GRANT UPDATE (listed_at) ON withdrawals TO sluice_worker;

-- +goose Down
SELECT 1 / 0 AS the_record_is_not_dropped;
