-- +goose Up
-- What the worker finds out about its key and its road to the exchange, what only a
-- person can confirm, the futures wallet, and the complete HTTP exchange of each
-- submission for the exchange's support.

-- What was checked of an account last, one row for each check.
CREATE TABLE exchange_findings (
    account  text NOT NULL REFERENCES accounts,
    item     text NOT NULL CHECK (item <> ''),
    position integer NOT NULL, -- the order in which people read them
    standing text NOT NULL CHECK (standing IN ('ok', 'warn', 'fail', 'skip')),
    cause    text NOT NULL,
    says     text NOT NULL CHECK (says <> ''),
    fix      text NOT NULL,
    also     jsonb NOT NULL,   -- less likely causes
    at       timestamptz NOT NULL,
    since    timestamptz NOT NULL, -- when it came to stand like this
    PRIMARY KEY (account, item),
    CONSTRAINT fix_when_wrong CHECK (standing IN ('ok', 'skip') OR fix <> '')
);

-- What the exchange tells to no program, and a person looked up on its pages.
CREATE TABLE account_confirmations (
    account      text NOT NULL REFERENCES accounts,
    item         text NOT NULL CHECK (item <> ''),
    confirmed_by text NOT NULL CHECK (confirmed_by <> ''),
    confirmed_at timestamptz NOT NULL,
    PRIMARY KEY (account, item)
);

-- The futures wallet, for information: nothing is paid from it. Equity may be below zero.
CREATE TABLE exchange_futures (
    account      text NOT NULL REFERENCES accounts,
    asset        text NOT NULL CHECK (asset <> ''),
    available    numeric NOT NULL,
    transferable numeric NOT NULL,
    equity       numeric NOT NULL, -- worked out by the exchange's formula
    unrealized   numeric NOT NULL, -- the part of it that moves with prices
    reported     numeric,          -- the exchange's own figure, which only its websocket gives
    PRIMARY KEY (account, asset)
);

-- The HTTP exchange of an attempt without access id, secret key and signature.
CREATE TABLE attempt_traces (
    attempt_id uuid PRIMARY KEY REFERENCES attempts,
    trace      json NOT NULL -- not jsonb: it is evidence, kept as it was written
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON attempt_traces FOR EACH STATEMENT EXECUTE FUNCTION append_only();

ALTER TABLE exchange_reads DROP CONSTRAINT exchange_reads_what_check,
    ADD CONSTRAINT exchange_reads_what_check CHECK (what IN ('config', 'balances', 'clock', 'withdrawals', 'futures'));

GRANT SELECT ON exchange_findings, account_confirmations, exchange_futures, attempt_traces TO sluice_api, sluice_worker;
GRANT INSERT, UPDATE, DELETE ON exchange_findings TO sluice_worker;
GRANT INSERT, UPDATE, DELETE ON exchange_futures TO sluice_worker;
GRANT INSERT ON attempt_traces TO sluice_worker;
-- Nobody but the owner confirms: a worker that has been taken over must not vouch for itself.

-- +goose Down
SELECT 1 / 0 AS the_record_is_not_dropped;
