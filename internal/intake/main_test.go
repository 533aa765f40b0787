package intake_test

import (
	"context"
	"testing"

	"sluice/internal/pgstore"
	"sluice/internal/pgstore/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, func(ctx context.Context, url string) error { return pgstore.Migrate(ctx, url, nil) })
}
