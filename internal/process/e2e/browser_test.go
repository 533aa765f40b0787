//go:build browser

// The browser's tests need Chromium on the PATH:
//
//	go test -tags browser -run Browser ./internal/process/e2e
//
// With -artifacts they keep a screenshot of every page, at desktop and phone width,
// light and dark.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/shopspring/decimal"
)

// browser starts one Chromium for a test.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-background-networking", true))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stop := chromedp.NewContext(allocator)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium: %v (install it, for example Debian's package chromium)", err)
	}
	return ctx
}

// visitor is one person at a browser of their own, cookies and passkeys apart.
type visitor struct {
	t      *testing.T
	ctx    context.Context
	origin string
	wrong  chan string // what the page's console complained about
}

func visit(t *testing.T, browser context.Context, origin string) *visitor {
	t.Helper()
	ctx, stop := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(stop)
	// Bounds a wait that will never come true; nothing is concluded from its length.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	v := &visitor{t: t, ctx: ctx, origin: origin, wrong: make(chan string, 100)}
	v.do(chromedp.EmulateViewport(1280, 900))
	return v
}

func (v *visitor) do(steps ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	if err := chromedp.Do(v.ctx, steps...); err != nil {
		var page string
		page, _ = chromedp.Run(v.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		v.t.Fatalf("%v\nthe page says:\n%s", err, page)
	}
}

func (v *visitor) goTo(path string) {
	v.t.Helper()
	v.do(chromedp.Navigate(v.origin + path))
}

func (v *visitor) click(selector string) {
	v.t.Helper()
	v.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func (v *visitor) fill(selector, value string) {
	v.t.Helper()
	v.do(chromedp.SetValue(chromedp.CSS(selector), value))
}

// sees waits until an expression about the page is true.
func (v *visitor) sees(expression string) {
	v.t.Helper()
	for {
		ok, err := chromedp.Run(v.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && ok {
			return
		}
		select {
		case <-v.ctx.Done():
			page, _ := chromedp.Run(context.WithoutCancel(v.ctx), chromedp.Evaluate[string]("document.body.innerText"))
			v.t.Fatalf("waiting for %s; the page says:\n%s", expression, page)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (v *visitor) path() string {
	v.t.Helper()
	path, err := chromedp.Run(v.ctx, chromedp.Evaluate[string]("location.pathname"))
	if err != nil {
		v.t.Fatal(err)
	}
	return path
}

// passkey gives the browser a virtual authenticator that verifies its user, or one
// that does not.
func (v *visitor) passkey(verified bool) {
	v.t.Helper()
	_, err := chromedp.Call(v.ctx, webauthn.Enable, webauthn.EnableParams{})
	if err == nil {
		_, err = chromedp.Call(v.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: verified, AutomaticPresenceSimulation: true}})
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// asDemo signs in as a demo person by a click.
func (v *visitor) asDemo(name string) {
	v.t.Helper()
	v.goTo("/signin")
	v.click(`[data-demo="` + name + `"]`)
	v.sees(`location.pathname === "/withdrawals" && document.readyState === "complete"`)
}

// enrol walks the invitation link with a new passkey, then signs in with it.
func (v *visitor) enrol(link string) {
	v.t.Helper()
	v.do(chromedp.Navigate(link))
	v.fill("#label", "virtual authenticator")
	v.click("[data-enrol] button")
	v.sees(`!location.pathname.startsWith("/enrol")`)
	if v.path() == "/signin" {
		v.click("[data-signin]:not([data-demo])")
		v.sees(`location.pathname === "/withdrawals"`)
	}
}

// approve opens a withdrawal's page and votes with the passkey.
func (v *visitor) approve(path string) {
	v.t.Helper()
	v.goTo(path)
	v.click(`[data-decision="approve"]`)
}

// pictures keeps what a page looks like.
func (v *visitor) pictures(name string) {
	v.t.Helper()
	for _, width := range []int64{1280, 390} {
		for _, scheme := range []string{"light", "dark"} {
			_, err := chromedp.Call(v.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
			if err != nil {
				v.t.Fatal(err)
			}
			v.do(chromedp.EmulateViewport(width, 900))
			png, err := chromedp.Run(v.ctx, chromedp.FullScreenshot(100))
			if err != nil {
				v.t.Fatal(err)
			}
			wide, err := chromedp.Run(v.ctx, chromedp.Evaluate[bool]("document.documentElement.scrollWidth > innerWidth"))
			if err != nil || wide {
				v.t.Errorf("%s is wider than a screen of %d pixels (%v)", name, width, err)
			}
			file := filepath.Join(v.t.ArtifactDir(), fmt.Sprintf("%s-%d-%s.png", name, width, scheme))
			if err := os.WriteFile(file, png, 0o644); err != nil {
				v.t.Fatal(err)
			}
		}
	}
	v.do(chromedp.EmulateViewport(1280, 900))
}

// quiet fails the test when a page logged an error, such as a breach of the content
// security policy.
func (v *visitor) quiet() {
	v.t.Helper()
	events := chromedp.Events(v.ctx, runtime.ExceptionThrown)
	go func() {
		for e, err := range events {
			if err != nil {
				return
			}
			v.wrong <- e.ExceptionDetails.Text
		}
	}()
	v.t.Cleanup(func() {
		select {
		case text := <-v.wrong:
			v.t.Errorf("a script threw: %s", text)
		default:
		}
	})
}

var enrolmentLink = regexp.MustCompile(`http://localhost:\d+/enrol/\S+`)

// invite adds an approver from the command line and returns the link.
func (s *stack) invite(name string) string {
	s.t.Helper()
	out := s.sluice("person", "add", name, "--display", "Erin "+name, "--role", "approver", "--data", s.data)
	link := enrolmentLink.FindString(out)
	if link == "" {
		s.t.Fatalf("no link in %q", out)
	}
	return link
}

// TestBrowserStory clicks the whole story: dora asks by the form; erin, who enrolled a
// passkey of a virtual authenticator by an invitation, and bob approve; the page
// follows to completed by itself.
func TestBrowserStory(t *testing.T) {
	s := newStack(t)
	s.start()
	chromium := browser(t)

	dora := visit(t, chromium, s.origin())
	dora.quiet()
	dora.goTo("/signin")
	dora.sees(`document.querySelectorAll("[data-demo]").length === 5`)
	dora.pictures("signin")
	dora.asDemo("dora")
	dora.pictures("queue-empty")
	dora.goTo("/withdrawals/new")
	dora.fill("#amount", "1e3")
	dora.fill("#purpose", "Payroll of November")
	dora.fill("#reference", "PAY-2026-11")
	dora.click(`input[name="destination"]`)
	dora.click(`form[data-request] button:not([type="button"])`)
	dora.sees(`!!document.querySelector("#e-amount")`)
	dora.sees(`document.querySelector("#purpose").value === "Payroll of November"`) // nothing is lost
	dora.pictures("new-with-error")
	dora.do(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll(".pick")].find(p => p.dataset.text.includes("TJRabPrwbZy45sbavfcjinPJC18kjpRTv8")).querySelector("input").click()`))
	dora.fill("#amount", "25.5")
	dora.click(`form[data-request] button:not([type="button"])`)
	dora.sees(`!!document.querySelector('#withdrawal[data-state="pending"]')`)
	path := dora.path()
	dora.sees(`!document.querySelector("#ballot")`) // whoever asks has no vote
	dora.pictures("withdrawal-pending-requester")

	erin := visit(t, chromium, s.origin())
	erin.quiet()
	erin.passkey(true)
	link := s.invite("erin")
	erin.do(chromedp.Navigate(link))
	erin.pictures("enrol")
	erin.enrol(link)
	erin.goTo(path)
	erin.pictures("withdrawal-pending-approver")
	erin.approve(path)
	erin.sees(`document.querySelectorAll(".votes li").length === 1`)

	bob := visit(t, chromium, s.origin())
	bob.quiet()
	bob.asDemo("bob")
	bob.pictures("queue-one")
	bob.approve(path)
	bob.sees(`document.querySelector("#withdrawal").dataset.state !== "pending"`)

	// Dora has not touched her page since; it follows by itself.
	dora.sees(`document.querySelector("#withdrawal").dataset.state === "completed"`)
	dora.pictures("withdrawal-completed")
	if paid := s.paid(); len(paid) != 1 || !paid[0].Net.Equal(decimal.RequireFromString("25.5")) {
		t.Fatalf("the exchange made %+v", paid)
	}
	for _, page := range []string{"whitelist", "audit", "health", "withdrawals?tab=all"} {
		dora.goTo("/" + page)
		dora.pictures(strings.NewReplacer("?", "-", "=", "-").Replace(page))
	}
	dora.goTo("/nowhere")
	dora.pictures("not-found")
	dora.goTo("/docs")
	dora.pictures("docs")
}

// TestBrowserReject: one reject with a reason ends it.
func TestBrowserReject(t *testing.T) {
	s := newStack(t)
	s.start()
	chromium := browser(t)
	id := s.request(s.service(), "browser-reject")
	erin := visit(t, chromium, s.origin())
	erin.passkey(true)
	erin.enrol(s.invite("erin"))
	erin.goTo("/withdrawals/" + id)
	erin.click("#reject summary")
	erin.fill("#vote-reason", "The invoice is not ours")
	erin.click(`[data-decision="reject"]`)
	erin.sees(`document.querySelector("#withdrawal").dataset.state === "rejected"`)
	erin.sees(`document.body.innerText.includes("The invoice is not ours")`)
	erin.pictures("withdrawal-rejected")
	if len(s.paid()) != 0 {
		t.Fatal("a rejected withdrawal was paid")
	}
}

// TestBrowserUnverifiedUser: a passkey that does not verify its user can do nothing.
func TestBrowserUnverifiedUser(t *testing.T) {
	s := newStack(t)
	s.start()
	erin := visit(t, browser(t), s.origin())
	erin.passkey(false)
	erin.do(chromedp.Navigate(s.invite("erin")))
	erin.fill("#label", "no PIN")
	erin.click("[data-enrol] button")
	erin.sees(`!document.querySelector("#problem").hidden`)
	erin.pictures("enrol-refused")
}
