package pgstore

import (
	"context"
	"testing"

	"sluice/internal/pgstore/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, func(ctx context.Context, url string) error { return Migrate(ctx, url, nil) })
}
