package dev

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"time"

	"sluice/internal/fault"
	"sluice/internal/identity"
)

// Visitor speaks to the api over HTTP, as a service with a token or as a demo
// person with a session. It goes the way that everybody goes.
type Visitor struct {
	origin string
	token  string
	http   *http.Client
}

// Service makes a visitor with a service token.
func Service(origin, token string) *Visitor {
	return &Visitor{origin: origin, token: token, http: &http.Client{Timeout: 30 * time.Second}}
}

// SignIn makes a visitor with the session of a demo person.
func SignIn(ctx context.Context, origin string, software *identity.Software, person string) (*Visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	v := &Visitor{origin: origin, http: &http.Client{Timeout: 30 * time.Second, Jar: jar}}
	var options struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	if err := v.Do(ctx, http.MethodPost, "/signin/options", struct{}{}, &options); err != nil {
		return nil, err
	}
	credential, err := software.Of(person).Get(options.PublicKey, origin)
	if err != nil {
		return nil, err
	}
	return v, v.Do(ctx, http.MethodPost, "/signin/finish", map[string]any{"credential": json.RawMessage(credential)}, nil)
}

// Voted is the answer to a vote.
type Voted struct {
	State     string `json:"state"`
	Approvals int    `json:"approvals"`
	Missing   int    `json:"missing"`
}

// Vote casts a demo person's vote with their software passkey. An empty reason
// approves; any other rejects.
func Vote(ctx context.Context, origin string, software *identity.Software, person, withdrawal, reason string) (Voted, error) {
	v, err := SignIn(ctx, origin, software, person)
	if err != nil {
		return Voted{}, fmt.Errorf("sign in as %s: %w", person, err)
	}
	decision := "approve"
	if reason != "" {
		decision = "reject"
	}
	var challenge struct {
		Nonce     string          `json:"nonce"`
		PublicKey json.RawMessage `json:"publicKey"`
	}
	path := "/withdrawals/" + withdrawal + "/vote/"
	if err := v.Do(ctx, http.MethodPost, path+"options", map[string]any{"decision": decision}, &challenge); err != nil {
		return Voted{}, err
	}
	if _, err := base64.RawURLEncoding.DecodeString(challenge.Nonce); err != nil {
		return Voted{}, fmt.Errorf("the server's nonce cannot be read: %w", err)
	}
	credential, err := software.Of(person).Get(challenge.PublicKey, origin)
	if err != nil {
		return Voted{}, err
	}
	var voted Voted
	err = v.Do(ctx, http.MethodPost, path+"finish", map[string]any{
		"decision": decision, "nonce": challenge.Nonce, "reason": reason, "credential": json.RawMessage(credential)}, &voted)
	return voted, err
}

// Problem is a refusal as the api gave it.
type Problem struct {
	fault.Problem
}

func (p *Problem) Error() string {
	return fmt.Sprintf("%d %s: %s; %s", p.Status, p.Code, p.Detail, p.Fix)
}

// Do sends JSON and reads JSON. A refusal is a *Problem.
func (v *Visitor) Do(ctx context.Context, method, path string, in, out any) error {
	status, body, err := v.Send(ctx, method, path, "", in)
	if err != nil {
		return err
	}
	if status >= 400 {
		p := &Problem{}
		if err := json.Unmarshal(body, &p.Problem); err != nil || p.Code == "" {
			return fmt.Errorf("%s %s: %d %s", method, path, status, bytes.TrimSpace(body))
		}
		return p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// Send sends one request and returns the status and body as they came. A key goes
// into the Idempotency-Key header.
func (v *Visitor) Send(ctx context.Context, method, path, key string, in any) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		b, ok := in.([]byte)
		if !ok {
			var err error
			if b, err = json.Marshal(in); err != nil {
				return 0, nil, err
			}
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, v.origin+path, body)
	if err != nil {
		return 0, nil, err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if v.token != "" {
		r.Header.Set("Authorization", "Bearer "+v.token)
	} else {
		r.Header.Set("Origin", v.origin)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	response, err := v.http.Do(r)
	if err != nil {
		return 0, nil, fmt.Errorf("no answer from %s: %w; is the stack running?", strings.TrimPrefix(v.origin, "http://"), err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	return response.StatusCode, b, err
}
