package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"sluice/internal/config"
	"sluice/internal/doctor"
	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
	"sluice/internal/pgstore"
)

// Keys are the exchange keys of the account as they are set at one moment.
type Keys struct {
	AccessID  config.Secret
	SecretKey config.Secret
	About     doctor.Key // what people say of it

	// The key that is to follow; "" for none. It is only tried, so that the change
	// holds no surprise.
	NextAccessID  config.Secret
	NextSecretKey config.Secret
}

func readKeys(getenv func(string) string) (Keys, error) {
	r := config.Read(getenv)
	k := Keys{AccessID: r.Secret("SLUICE_COINEX_ACCESS_ID"), SecretKey: r.Secret("SLUICE_COINEX_SECRET_KEY"),
		NextAccessID: r.OptionalSecret("SLUICE_COINEX_NEXT_ACCESS_ID"), NextSecretKey: r.OptionalSecret("SLUICE_COINEX_NEXT_SECRET_KEY")}
	// No secrets, but they change together with the key, and so may lie in files beside it.
	created, bound := r.OptionalSecret(doctor.CreatedSetting), r.OptionalSecret(doctor.BoundSetting)
	var err error
	k.About, err = doctor.ParseKey(string(created), string(bound))
	return k, errors.Join(r.Err(), err)
}

// account is the account at the exchange under the key of the moment.
type account struct {
	mu      sync.Mutex
	client  *coinex.Client
	keys    Keys
	changed chan struct{} // closed when another client takes its place
	// staleDay is the day that was said of a key which has been replaced since. It
	// says nothing of the present one.
	staleDay time.Time

	// sending is held for reading through a submission: what a client has signed, the
	// same client sends.
	sending sync.RWMutex
}

var _ exchange.Exchange = (*account)(nil)

func newAccount(c *coinex.Client, k Keys) *account {
	return &account{client: c, keys: k, changed: make(chan struct{})}
}

// present is the client in use, with its keys, and a channel that is closed when it
// no longer is.
func (a *account) present() (*coinex.Client, Keys, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.keys
	if k.About.Created.Equal(a.staleDay) {
		k.About.Created = time.Time{}
	}
	return a.client, k, a.changed
}

func (a *account) now() *coinex.Client {
	c, _, _ := a.present()
	return c
}

// change puts another client in place, between two submissions.
func (a *account) change(c *coinex.Client, k Keys) {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if k.About.Created.Equal(a.keys.About.Created) {
		a.staleDay = k.About.Created
	}
	a.client, a.keys = c, k
	close(a.changed)
	a.changed = make(chan struct{})
}

// describe takes over what people say of the key in use.
func (a *account) describe(about doctor.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys.About = about
}

func (a *account) Sign(ctx context.Context, o exchange.Order) (exchange.Signed, error) {
	return a.now().Sign(ctx, o)
}

func (a *account) Withdraw(ctx context.Context, o exchange.Order, s exchange.Signed) exchange.Outcome {
	return a.now().Withdraw(ctx, o, s)
}

func (a *account) Withdrawals(ctx context.Context, q exchange.Query) (exchange.Page, error) {
	return a.now().Withdrawals(ctx, q)
}

func (a *account) Cancel(ctx context.Context, id int64) error { return a.now().Cancel(ctx, id) }

func (a *account) Debits(ctx context.Context, asset string, since time.Time) ([]exchange.Movement, error) {
	return a.now().Debits(ctx, asset, since)
}

func (a *account) Config(ctx context.Context, asset string) ([]exchange.ChainConfig, error) {
	return a.now().Config(ctx, asset)
}

func (a *account) Balances(ctx context.Context) ([]exchange.Balance, error) {
	return a.now().Balances(ctx)
}

func (a *account) Now(ctx context.Context) (time.Time, error) { return a.now().Now(ctx) }

// The checks of the worker's own.
const (
	checkChange = "key_change"
	checkNext   = "next_key"
)

// changeKey looks whether another key has been set, and takes it where it is proven.
// The findings say what became of that; in all but the good case the present key stays.
func (w *Worker) changeKey(ctx context.Context, record *pgstore.AccountRecord) []exchange.Finding {
	if w.config.Keys == nil {
		return nil
	}
	set, err := w.config.Keys()
	if err != nil {
		return []exchange.Finding{{Check: checkChange, Standing: exchange.Doubtful, Cause: "key_unreadable",
			Says: "The key's settings cannot be read any more: " + err.Error() + ". The key from before is in use.",
			Fix:  "Mend the settings or the files; they are read again by themselves."}}
	}
	var out []exchange.Finding
	_, present, _ := w.exchange.present()
	if set.AccessID == present.AccessID && set.SecretKey == present.SecretKey {
		w.exchange.describe(set.About)
	} else if client, trouble := w.prove(ctx, set.AccessID, set.SecretKey, set.About, record); trouble != nil {
		trouble.Check, trouble.Standing = checkChange, exchange.Doubtful
		trouble.Says = "Another key is set, and was not taken: the one from before is in use. " + trouble.Says
		out = append(out, *trouble)
	} else {
		w.exchange.change(client, set)
		w.options.Log.InfoContext(ctx, "exchange key changed", "account", w.config.Account)
	}
	if set.NextAccessID == "" && set.NextSecretKey == "" || set.NextAccessID == set.AccessID && set.NextSecretKey == set.SecretKey {
		return out
	}
	if _, trouble := w.prove(ctx, set.NextAccessID, set.NextSecretKey, doctor.Key{}, record); trouble != nil {
		trouble.Check, trouble.Standing = checkNext, exchange.Doubtful
		trouble.Says = "The next key does not work yet. " + trouble.Says
		return append(out, *trouble)
	}
	return append(out, exchange.Finding{Check: checkNext, Standing: exchange.Well,
		Says: "The next key is ready: the exchange accepts it, and it belongs to the same account. Put it in the place of the present one to change over."})
}

// prove tries a key beside the present one. It returns a client where the key works
// and belongs to the same account: under another one, every withdrawal of ours would
// seem absent.
func (w *Worker) prove(ctx context.Context, id, secret config.Secret, about doctor.Key, record *pgstore.AccountRecord) (*coinex.Client, *exchange.Finding) {
	facts := doctor.Facts{At: w.options.Now(), Key: about, Record: record}
	client, err := coinex.New(coinex.Config{BaseURL: w.config.CoinexURL, AccessID: string(id), SecretKey: string(secret), Now: w.options.Now})
	if err != nil {
		facts.Address = err
	} else {
		facts = doctor.Try(ctx, client, facts)
	}
	if trouble, found := doctor.Judge(facts).Trouble(); found {
		return nil, &trouble
	}
	if facts.HasLast {
		return client, nil
	}
	// Nothing has been paid yet that would tell accounts apart.
	if same, err := w.sameAccount(ctx, client, facts.Balances); err != nil || !same {
		return nil, &exchange.Finding{Cause: "key_unproven",
			Says: "Nothing shows that it belongs to the same account: nothing has been paid from here yet, and balances and history under the two keys differ or cannot be compared.",
			Fix:  "If you are sure, restart the worker with the new key. Never change to a key of another account."}
	}
	return client, nil
}

// sameAccount compares what the two keys show of their accounts.
func (w *Worker) sameAccount(ctx context.Context, other *coinex.Client, balances []exchange.Balance) (bool, error) {
	present := w.exchange.now()
	unsettled, err := w.store.UnsettledAttempts(ctx, w.config.Account)
	if err != nil || len(unsettled) > 0 {
		return false, err
	}
	ours, err := present.Withdrawals(ctx, exchange.Query{})
	if err != nil {
		return false, err
	}
	theirs, err := other.Withdrawals(ctx, exchange.Query{})
	if err != nil {
		return false, err
	}
	if len(ours.Rows) > 0 {
		return doctor.Has(ctx, other, ours.Rows[0].ID)
	}
	held, err := present.Balances(ctx)
	if err != nil {
		return false, err
	}
	return len(theirs.Rows) == 0 && slices.EqualFunc(sorted(held), sorted(balances), func(a, b exchange.Balance) bool {
		return a.Asset == b.Asset && a.Available.Equal(b.Available) && a.Frozen.Equal(b.Frozen)
	}), nil
}

func sorted(list []exchange.Balance) []exchange.Balance {
	return slices.SortedFunc(slices.Values(list), func(a, b exchange.Balance) int {
		if a.Asset < b.Asset {
			return -1
		}
		return 1
	})
}
