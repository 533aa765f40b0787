package worker

import (
	"context"
	"errors"
	"math"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"sluice/internal/doctor"
	"sluice/internal/exchange"
	"sluice/internal/exchange/coinex"
)

// refresh reads the exchange once and uses it twice: it mirrors configuration, balances
// and clock into the database, where the api reads them with their age, and judges key
// and connection for the health page and the metrics.
func (w *Worker) refresh(ctx context.Context) error {
	record, err := w.store.AccountRecord(ctx, w.config.Account)
	if err != nil {
		return err
	}
	changes := w.changeKey(ctx, &record)
	client, keys, _ := w.exchange.present()
	now := w.options.Now()
	f := doctor.Gather(ctx, client, doctor.Facts{At: now, Key: keys.About, Record: &record, Worked: w.worked == client})
	if ctx.Err() != nil {
		return nil // told to stop: what came of the calls says nothing of the exchange
	}
	errs := []error{f.Reach, f.ConfigErr, f.BalancesErr, f.ClockErr}
	if f.Reach == nil && f.ConfigErr == nil {
		errs = append(errs, w.store.WriteChains(ctx, w.config.Account, f.Chains, now))
	}
	if f.Reach == nil && f.ClockErr == nil && f.BalancesErr == nil {
		w.worked = client
		errs = append(errs, w.store.WriteBalances(ctx, w.config.Account, f.Balances, true, now))
	}
	if f.Reach == nil && f.ClockErr == nil {
		errs = append(errs, w.store.NoteRead(ctx, w.config.Account, "clock", clockText(f.Clock), now))
	}
	errs = append(errs, w.wallet.price(ctx, client))

	findings := doctor.Judge(f).Checks
	findings = append(findings, changes...)
	findings = append(findings, w.wallet.link())
	w.metrics.show(w.config.Account, f, findings)
	return errors.Join(append(errs, w.store.WriteFindings(ctx, w.config.Account, findings, now))...)
}

// metrics are what a monitor watches of an account.
type metrics struct {
	daysToExpiry, clockOffset, clockError, roundTrip, longLimits *prometheus.GaugeVec
	checks                                                       *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		return promauto.With(r).NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"account"}, more...))
	}
	return &metrics{
		daysToExpiry: gauge("sluice_key_days_to_expiry", "Days until the exchange key ends; +Inf for a key that is bound to an address; missing where nobody has said when it was made."),
		clockOffset:  gauge("sluice_exchange_clock_offset_seconds", "How far the exchange's clock is ahead of ours."),
		clockError:   gauge("sluice_exchange_clock_error_seconds", "Bound of the error of the offset."),
		roundTrip:    gauge("sluice_exchange_roundtrip_seconds", "Median time that the exchange takes to answer."),
		longLimits:   gauge("sluice_exchange_long_limits", "Long-term rate limits in force."),
		checks:       gauge("sluice_check", "1 for how each check stands: ok, warn, fail or skip.", "check", "standing"),
	}
}

func (m *metrics) show(account string, f doctor.Facts, findings []exchange.Finding) {
	end := f.Key.Expires()
	switch {
	case f.Key.Binding == coinex.Bound:
		m.daysToExpiry.WithLabelValues(account).Set(math.Inf(1))
	case end.IsZero():
		m.daysToExpiry.DeleteLabelValues(account)
	default:
		m.daysToExpiry.WithLabelValues(account).Set(end.Sub(f.At).Hours() / 24)
	}
	if !f.Clock.At.IsZero() {
		m.clockOffset.WithLabelValues(account).Set(f.Clock.Offset.Seconds())
		m.clockError.WithLabelValues(account).Set(f.Clock.Error.Seconds())
	}
	if f.Latency.Samples > 0 {
		m.roundTrip.WithLabelValues(account).Set(f.Latency.Median.Seconds())
	}
	limits := m.longLimits.WithLabelValues(account)
	limits.Set(0)
	for range f.Limits.Long {
		limits.Inc()
	}
	m.checks.Reset()
	for _, c := range findings {
		m.checks.WithLabelValues(account, c.Check, string(c.Standing)).Set(1)
	}
}
