package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/shopspring/decimal"

	"sluice/internal/exchange"
	"sluice/internal/money"
	"sluice/internal/whitelist"
	"sluice/internal/withdraw"
)

// readFacts answers for a whole batch in one statement. Each join is by a unique
// index, so its cost grows with the batch and not with the tables.
//
// Only one array is unnested and the others are read by position: Postgres gives
// each unnested array a store of its own, and a dozen of them cost more than the work on
// a small batch. The sub-select hides the array's length from the planner: else a plan
// made for the very array of a small batch looks cheaper than the prepared one, and
// Postgres plans the whole join anew each time, at several times the cost of running it.
// What is near is told only of accounts that the client may pay from.
const readFacts = `
WITH i AS MATERIALIZED (
    SELECT n, requester, ($2::text[])[n] AS client, ($3::bytea[])[n] AS client_key, ($4::text[])[n] AS key,
        ($5::text[])[n] AS reference, ($6::text[])[n] AS account, ($7::text[])[n] AS method, ($8::text[])[n] AS asset,
        ($9::text[])[n] AS chain, ($10::text[])[n] AS address, ($11::text[])[n] AS memo
    FROM unnest((SELECT $1::text[])) WITH ORDINALITY AS each (requester, n)
)
SELECT i.n - 1,
       prior.body_hash, prior.answer_status, prior.answer,
       taken.id,
       i.client = '' OR (c.disabled_at IS NULL AND c.public_key = i.client_key AND i.account = ANY (c.accounts)),
       d.id, d.version, d.state, d.reason,
       near.account, near.method, near.asset, near.chain, near.memo, near.state,
       x.version, x.asset_enabled, x.chain_enabled, x.inter_user_enabled, x.min_amount, x.fee, x.precision, x.memo_required,
       EXISTS (SELECT FROM exchange_chains a WHERE a.asset = i.asset),
       r.at
FROM i
LEFT JOIN withdrawals prior ON prior.requester = i.requester AND prior.idempotency_key = i.key
LEFT JOIN withdrawals taken ON taken.requester = i.requester AND taken.reference = i.reference AND taken.state <> 'refused'
LEFT JOIN service_clients c ON c.name = i.client
LEFT JOIN destinations d ON d.account = i.account AND d.method = i.method AND d.asset = i.asset AND d.chain = i.chain
     AND d.address = i.address AND d.memo = i.memo AND d.state <> 'removed'
LEFT JOIN LATERAL (SELECT * FROM destinations n WHERE d.id IS NULL AND n.address = i.address
     AND (i.client = '' OR n.account = ANY (c.accounts)) AND n.state <> 'removed'
     LIMIT 1) near ON true
LEFT JOIN LATERAL (SELECT * FROM exchange_chains e WHERE e.asset = i.asset AND (e.chain = i.chain OR i.method = 'inter_user')
     ORDER BY e.chain LIMIT 1) x ON true
LEFT JOIN exchange_reads r ON r.account = i.account AND r.what = 'config'`

// Facts reads, in one round trip, what intake must know of each request.
func (s *Store) Facts(ctx context.Context, requests []withdraw.Request) ([]withdraw.Facts, error) {
	n := len(requests)
	var (
		requester, client, key, reference, account = texts(n), texts(n), texts(n), texts(n), texts(n)
		method, asset, chain, address, memo        = texts(n), texts(n), texts(n), texts(n), texts(n)
		clientKey                                  = byteas(n)
	)
	for i, r := range requests {
		requester[i], client[i], clientKey[i] = r.Requester, r.Client(), r.ClientKey
		key[i], reference[i], account[i], method[i] = r.IdempotencyKey, r.Reference, r.Account, string(r.Method)
		asset[i], chain[i], address[i], memo[i] = r.Asset, r.Chain, r.Address, r.Memo
	}
	rows, err := s.Pool.Query(ctx, readFacts, requester, client, clientKey, key, reference, account, method, asset, chain, address, memo)
	if err != nil {
		return nil, fmt.Errorf("intake: read facts: %w", err)
	}
	defer rows.Close()
	facts := make([]withdraw.Facts, n)
	for rows.Next() {
		if err := scanFacts(rows, requests, facts); err != nil {
			return nil, fmt.Errorf("intake: read facts: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("intake: read facts: %w", err)
	}
	return facts, nil
}

func texts(n int) []string  { return make([]string, n) }
func byteas(n int) [][]byte { return make([][]byte, n) }

// uuids is in the driver's own types, which spare it a search for each element.
func uuids(n int) pgtype.FlatArray[pgtype.UUID] { return make([]pgtype.UUID, n) }

func scanFacts(rows pgx.Rows, requests []withdraw.Request, facts []withdraw.Facts) error {
	var (
		n                                                                  int
		bodyHash, answer                                                   []byte
		status                                                             *int16
		taken, destID                                                      *uuid.UUID
		active                                                             *bool
		destVersion, chainVersion, precision                               *int32
		destState, destReason                                              *string
		nearAccount, nearMethod, nearAsset, nearChain, nearMemo, nearState *string
		assetOn, chainOn, interOn, memoRequired                            *bool
		minimum, fee                                                       decimal.NullDecimal
		assetKnown                                                         bool
		readAt                                                             *time.Time
	)
	if err := rows.Scan(&n, &bodyHash, &status, &answer, &taken, &active,
		&destID, &destVersion, &destState, &destReason,
		&nearAccount, &nearMethod, &nearAsset, &nearChain, &nearMemo, &nearState,
		&chainVersion, &assetOn, &chainOn, &interOn, &minimum, &fee, &precision, &memoRequired,
		&assetKnown, &readAt); err != nil {
		return err
	}
	f := withdraw.Facts{ReferenceTaken: taken, ClientActive: active != nil && *active, AssetKnown: assetKnown, ConfigReadAt: readAt}
	if status != nil {
		f.Prior = &withdraw.Prior{BodyHash: bodyHash, Answer: withdraw.Answer{Status: int(*status), Body: answer}}
	}
	if destID != nil {
		f.Destination = &withdraw.Listed{ID: *destID, Version: int(*destVersion), State: whitelist.State(*destState), Reason: *destReason}
	}
	if nearAccount != nil {
		f.Near = &withdraw.Near{Account: *nearAccount, Method: exchange.Method(*nearMethod), Asset: *nearAsset,
			Chain: *nearChain, Memo: *nearMemo, State: whitelist.State(*nearState)}
	}
	if chainVersion != nil {
		f.Chain = &withdraw.ChainFact{Version: int(*chainVersion), ChainConfig: exchange.ChainConfig{
			Asset: requests[n].Asset, Chain: requests[n].Chain, AssetEnabled: *assetOn, ChainEnabled: *chainOn,
			InterUserEnabled: *interOn, MinAmount: minimum.Decimal, Fee: fee.Decimal, Precision: *precision, MemoRequired: *memoRequired}}
	}
	facts[n] = f
	return nil
}

// recordEntries writes a whole batch in one statement and one commit. An accepted
// entry is written only if its destination and the exchange's configuration are
// still what Decide saw, and any entry only if its client is in order: the check and
// the insert cannot drift apart. Whatever collides with an earlier key or reference
// is left out. The caller reads the facts of what was left out again.
//
// Rows go in by key, in the same order in every process: two batches that hold the
// same two keys in opposite orders would wait for each other until Postgres breaks
// one off. The arrays are read as in readFacts.
const recordEntries = `
WITH i AS MATERIALIZED (
    SELECT id, ($2::text[])[n] AS requester, ($3::text[])[n] AS reference, ($4::text[])[n] AS key,
        ($5::bytea[])[n] AS body_hash, ($6::smallint[])[n] AS answer_status, ($7::bytea[])[n] AS answer,
        ($8::text[])[n] AS account, ($9::text[])[n] AS method, ($10::text[])[n] AS asset, ($11::text[])[n] AS chain,
        ($12::text[])[n] AS address, ($13::text[])[n] AS memo, ($14::numeric[])[n] AS amount,
        ($15::numeric[])[n] AS max_fee, ($16::text[])[n] AS purpose, ($17::uuid[])[n] AS destination_id,
        ($18::text[])[n] AS state, ($19::bytea[])[n] AS digest, ($20::timestamptz[])[n] AS expires_at,
        ($21::text[])[n] AS reason_code, ($22::text[])[n] AS reason, ($23::text[])[n] AS fix,
        ($24::timestamptz[])[n] AS now, ($25::int[])[n] AS destination_version, ($26::int[])[n] AS chain_version,
        ($27::bytea[])[n] AS sealed, ($28::uuid[])[n] AS event_id, ($29::text[])[n] AS action,
        ($30::bytea[])[n] AS event, ($31::text[])[n] AS client, ($32::bytea[])[n] AS client_key
    FROM unnest((SELECT $1::uuid[])) WITH ORDINALITY AS each (id, n)
), w AS (
    INSERT INTO withdrawals (id, requester, reference, idempotency_key, body_hash, answer_status, answer,
        account, method, asset, chain, address, memo, amount, max_fee, purpose,
        destination_id, state, digest, expires_at, reason_code, reason, fix, created_at, updated_at)
    SELECT id, requester, reference, key, body_hash, answer_status, answer,
        account, method, asset, chain, address, memo, amount, max_fee, purpose,
        destination_id, state, digest, expires_at, reason_code, reason, fix, now, now
    FROM i
    WHERE (client = '' OR EXISTS (SELECT FROM service_clients c WHERE c.name = i.client
            AND c.disabled_at IS NULL AND c.public_key = i.client_key AND i.account = ANY (c.accounts)))
        AND (state = 'refused' OR (
            EXISTS (SELECT FROM destinations d WHERE d.id = i.destination_id AND d.version = i.destination_version AND d.state = 'active')
            AND i.chain_version = (SELECT e.version FROM exchange_chains e WHERE e.asset = i.asset
                AND (e.chain = i.chain OR i.method = 'inter_user') ORDER BY e.chain LIMIT 1)))
    ORDER BY requester, key
    ON CONFLICT DO NOTHING
    RETURNING id
), p AS (
    INSERT INTO proposals (digest, sealed, withdrawal_id, round, created_at)
    SELECT i.digest, i.sealed, i.id, 1, i.now FROM i JOIN w USING (id) WHERE i.sealed IS NOT NULL
), e AS (
    INSERT INTO audit_events (id, at, actor, action, withdrawal_id, body)
    SELECT i.event_id, i.now, i.requester, i.action, i.id, i.event FROM i JOIN w USING (id)
)
SELECT id FROM w`

// Record writes decided requests and returns the ids that it wrote.
func (s *Store) Record(ctx context.Context, entries []withdraw.Entry) (map[uuid.UUID]bool, error) {
	n := len(entries)
	var (
		ids, events, destinations                         = uuids(n), uuids(n), uuids(n)
		requester, reference, key, account, method, asset = texts(n), texts(n), texts(n), texts(n), texts(n), texts(n)
		chain, address, memo, amount, purpose, state      = texts(n), texts(n), texts(n), texts(n), texts(n), texts(n)
		code, reason, fix, action, client                 = texts(n), texts(n), texts(n), texts(n), texts(n)
		maxFee                                            = make([]*string, n)
		status                                            = make([]int16, n)
		bodyHash, answer, digest, sealed, body, clientKey = byteas(n), byteas(n), byteas(n), byteas(n), byteas(n), byteas(n)
		expires                                           = make([]*time.Time, n)
		now                                               = make([]time.Time, n)
		destVersion, chainVersion                         = make([]int32, n), make([]int32, n)
	)
	for k, e := range entries {
		w, event := e.Withdrawal, e.Event
		b, err := event.Body()
		if err != nil {
			return nil, err
		}
		ids[k] = pgtype.UUID{Bytes: w.ID, Valid: true}
		requester[k], reference[k], key[k] = w.Requester, w.Reference, e.Request.IdempotencyKey
		bodyHash[k], status[k], answer[k] = e.Request.BodyHash[:], int16(e.Answer.Status), e.Answer.Body
		account[k], method[k], asset[k], chain[k] = w.Account, string(w.Method), w.Asset, w.Chain
		address[k], memo[k], amount[k], purpose[k] = w.Address, w.Memo, money.Text(w.Amount), w.Purpose
		if w.MaxFee.Valid {
			fee := money.Text(w.MaxFee.Decimal)
			maxFee[k] = &fee
		}
		if w.DestinationID != nil {
			destinations[k] = pgtype.UUID{Bytes: *w.DestinationID, Valid: true}
		}
		state[k], digest[k], expires[k] = string(w.State), w.Digest, w.ExpiresAt
		code[k], reason[k], fix[k], now[k] = w.ReasonCode, w.Reason, w.Fix, w.CreatedAt
		destVersion[k], chainVersion[k], sealed[k] = int32(e.DestinationVersion), int32(e.ChainVersion), e.Sealed
		events[k], action[k], body[k] = pgtype.UUID{Bytes: event.ID, Valid: true}, event.Action, b
		client[k], clientKey[k] = e.Request.Client(), e.Request.ClientKey
	}
	rows, err := s.Pool.Query(ctx, recordEntries, ids, requester, reference, key, bodyHash, status, answer,
		account, method, asset, chain, address, memo, amount, maxFee, purpose,
		destinations, state, digest, expires, code, reason, fix, now,
		destVersion, chainVersion, sealed, events, action, body, client, clientKey)
	if err != nil {
		return nil, fmt.Errorf("intake: record: %w", err)
	}
	written, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("intake: record: %w", err)
	}
	recorded := make(map[uuid.UUID]bool, len(written))
	for _, id := range written {
		recorded[id] = true
	}
	return recorded, nil
}
