package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

type healthCommand struct {
	URL     string        `arg:"" help:"Address to ask, such as http://127.0.0.1:8080/readyz."`
	Timeout time.Duration `help:"How long to wait for the answer." default:"3s"`
}

// Run is the health check of a container: its image holds no shell and no curl.
func (c *healthCommand) Run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return fmt.Errorf("%q is not an address: %w", c.URL, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4<<10)) // what Docker keeps of a check's output
	if err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	answer = bytes.TrimSpace(answer)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", c.URL, response.Status, answer)
	}
	_, err = fmt.Fprintf(out, "%s\n", answer)
	return err
}
