// Package migrations embeds the numbered SQL that makes the schema.
package migrations

import "embed"

// Files holds every migration, in goose's format.
//
//go:embed *.sql
var Files embed.FS
