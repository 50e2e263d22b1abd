package center

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/go-chi/chi/v5"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/push"
)

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// newRequest returns a request with a JSON body and a credential, and where its answer goes.
func newRequest(_ testing.TB, method, path, body, credential string) (*httptest.ResponseRecorder, *http.Request) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+credential)
	return httptest.NewRecorder(), r
}

const okBody = `{"to":{"users":["alice"]},"message":{"body":1}}`

// paths returns a request for every operation, as the contract has them.
func paths(t testing.TB) []ask {
	var asks []ask
	loadContract(t).eachOperation(func(path, verb string, op map[string]any) {
		path = strings.NewReplacer("{id}", "123", "{user}", "alice", "{device}", "phone", "{product}", "shop", "{key}", "k").Replace(path)
		a := ask{method: strings.ToUpper(verb), path: path}
		if op["requestBody"] != nil {
			a.body = `{}`
		}
		if path == "/admin/v1/sessions" {
			a.path += "?product=shop&user=alice"
		}
		asks = append(asks, a)
	})
	return asks
}

func TestHTTP_EveryOperationNeedsACredential(t *testing.T) {
	g := newGateway(t)
	other := newGateway(t)
	for _, a := range paths(t) {
		for _, key := range []string{"none", "wrong", other.key, g.key[:len(g.key)-1] + "_"} {
			a.key = key
			g.do(a).want(t, 401, "unauthenticated")
		}
		a.key = testSecret
		if strings.HasPrefix(a.path, "/admin/") {
			a.key = g.key
		}
		g.do(a).want(t, 401, "unauthenticated")
	}
	if n := g.store.publications.Load(); n != 0 {
		t.Errorf("strangers published %d messages", n)
	}
}

func TestHTTP_EveryOperationNeedsItsScope(t *testing.T) {
	g := newGateway(t)
	for _, op := range publicOperations {
		path := strings.NewReplacer("{id}", "123", "{user}", "alice", "{device}", "phone").Replace(op.pattern)
		a := ask{method: op.method, path: path}
		if op.body != noBody {
			a.body = `{}`
		}
		for _, s := range catalog.Scopes() {
			a.key = g.makeKey(product, s)
			got := g.do(a)
			if allowed := s == op.scope || s == catalog.ScopeAll; (got.status != 403) != allowed {
				t.Errorf("%s %s with %s: %d %s", op.method, op.pattern, s, got.status, got.body)
			}
			if got.status == 403 && got.code() != "scope_missing" {
				t.Errorf("%s %s with %s: %s", op.method, op.pattern, s, got.body)
			}
		}
	}
}

func TestHTTP_KeysThatEnded(t *testing.T) {
	g := newGateway(t)
	add := func(expires push.MilliTime) (catalog.APIKeyID, string) {
		k, text, err := catalog.NewAPIKey(rand.Reader, catalog.APIKey{
			Product: product, Scopes: []catalog.Scope{catalog.ScopeAll}, Expires: expires,
		})
		if err == nil {
			_, err = g.catalog.AddAPIKey(t.Context(), k)
		}
		if err != nil {
			t.Fatal(err)
		}
		return k.ID, string(text)
	}
	_, expiring := add(push.Milli(g.clock.Now().Add(time.Minute)))
	a := ask{path: "/v1/messages", body: okBody, key: expiring}
	g.do(a).want(t, 201)
	g.clock.advance(time.Minute)
	g.do(a).want(t, 401, "key_expired")

	id, revoked := add(0)
	a.key = revoked
	g.do(a).want(t, 201)
	if _, err := g.catalog.RevokeAPIKey(t.Context(), product, id); err != nil {
		t.Fatal(err)
	}
	g.do(a).want(t, 401, "key_revoked")
}

func TestHTTP_DisabledProduct(t *testing.T) {
	g := newGateway(t)
	g.do(ask{method: "PATCH", path: "/admin/v1/products/shop", body: `{"disabled":true}`}).want(t, 200)
	g.publish(okBody).want(t, 403, "product_disabled")
	g.do(ask{path: "/v1/users/alice"}).want(t, 403, "product_disabled")
	g.do(ask{method: "PATCH", path: "/admin/v1/products/shop", body: `{"disabled":false}`}).want(t, 200)
	g.publish(okBody).want(t, 201)
}

func TestHTTP_WrongMethodsAndPaths(t *testing.T) {
	g := newGateway(t)
	cases := []struct {
		method, path, code, allow string
		status                    int
	}{
		{"GET", "/v1/messages", "method_not_allowed", "POST", 405},
		{"PUT", "/v1/messages/12", "method_not_allowed", "DELETE, GET", 405},
		{"DELETE", "/v1/users/a%2Fb", "method_not_allowed", "GET", 405},
		{"OPTIONS", "/v1/messages", "method_not_allowed", "POST", 405},
		{"PUT", "/admin/v1/products/shop", "method_not_allowed", "GET, PATCH", 405},
		{"GET", "/v1", "unknown_path", "", 404},
		{"GET", "/v1/", "unknown_path", "", 404},
		{"GET", "/v1/messages/", "unknown_path", "", 404},
		{"POST", "/v1/messages/batch/", "unknown_path", "", 404},
		{"GET", "/v1/users/a/b", "unknown_path", "", 404},
		{"GET", "/v1/nothing", "unknown_path", "", 404},
		{"GET", "/admin/v1/nothing", "unknown_path", "", 404},
	}
	for _, c := range cases {
		got := g.do(ask{method: c.method, path: c.path, key: "none"}).want(t, c.status, c.code)
		if allow := got.header.Get("Allow"); allow != c.allow {
			t.Errorf("%s %s: Allow is %q, want %q", c.method, c.path, allow, c.allow)
		}
	}
	r := httptest.NewRequest("GET", "/admin/v1/products", nil)
	w := httptest.NewRecorder()
	g.public.ServeHTTP(w, r)
	if w.Code != 404 {
		t.Errorf("the public listener answers an admin path with %d, want 404", w.Code)
	}
}

func TestHTTP_BodyMustBeJSON(t *testing.T) {
	g := newGateway(t)
	cases := []struct {
		contentType, encoding string
		status                int
	}{
		{"application/json", "", 201}, {"application/json; charset=utf-8", "", 201}, {"Application/JSON;charset=\"UTF-8\"", "identity", 201},
		{"", "", 415}, {"text/plain", "", 415}, {"application/json; charset=latin1", "", 415}, {"application/json", "gzip", 415},
		{"application/jsonx", "", 415}, {"application/x-www-form-urlencoded", "", 415}, {";", "", 415},
	}
	for _, c := range cases {
		h := map[string]string{"Content-Type": c.contentType}
		if c.encoding != "" {
			h["Content-Encoding"] = c.encoding
		}
		got := g.do(ask{path: "/v1/messages", body: okBody, header: h})
		if got.status != c.status {
			t.Errorf("%q %q: got %d, want %d", c.contentType, c.encoding, got.status, c.status)
		}
	}
}

func TestHTTP_BodiesAreBounded(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Limits.Request, c.Limits.Batch = 100, 200 })
	fill := func(n int) string {
		return okBody + strings.Repeat(" ", n-len(okBody))
	}
	g.publish(fill(100)).want(t, 201)
	g.publish(fill(101)).want(t, 413, "request_too_large")
	batch := `{"messages":[` + okBody + `]}`
	g.do(ask{path: "/v1/messages/batch", body: batch + strings.Repeat(" ", 200-len(batch))}).want(t, 200)
	g.do(ask{path: "/v1/messages/batch", body: batch + strings.Repeat(" ", 201-len(batch))}).want(t, 413, "request_too_large")
	g.do(ask{path: "/admin/v1/products", body: `{"id":"x"}` + strings.Repeat(" ", 100)}).want(t, 413, "request_too_large")
	for _, n := range []int{100, 101} { // without Content-Length
		w, r := newRequest(t, "POST", "/v1/messages", "", g.key)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(fill(n))), -1
		g.public.ServeHTTP(w, r)
		if want := map[int]int{100: 201, 101: 413}[n]; w.Code != want {
			t.Errorf("%d bytes without a length: got %d, want %d", n, w.Code, want)
		}
	}
}

func TestHTTP_BodyThatBreaksOffIsRefused(t *testing.T) {
	g := newGateway(t)
	for _, length := range []int64{-1, int64(len(okBody))} {
		w, r := newRequest(t, "POST", "/v1/messages", "", g.key)
		r.Body, r.ContentLength = io.NopCloser(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(okBody)))), length
		g.public.ServeHTTP(w, r)
		if w.Code != 400 || g.store.publications.Load() != 0 {
			t.Errorf("got %d %s, want 400 and nothing stored", w.Code, w.Body)
		}
	}
}

func TestHTTP_OneProductCannotTakeAllRequests(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.Limits.InFlight = 1 })
	g.makeProduct("news")
	news := g.makeKey("news", catalog.ScopeAll)
	var inside, other *answer
	g.store.during = func() {
		g.store.during = nil
		inside = g.publish(okBody)
		other = g.do(ask{path: "/v1/messages", body: okBody, key: news})
	}
	g.publish(okBody).want(t, 201)
	if inside.want(t, 429, "too_many_requests").header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q, want 1", inside.header.Get("Retry-After"))
	}
	other.want(t, 201)
	g.publish(okBody).want(t, 201)
}

func TestHTTP_RequestIDs(t *testing.T) {
	g := newGateway(t)
	seen := map[string]bool{}
	for _, c := range []struct {
		given string
		kept  bool
	}{
		{"", false}, {"abc-1", true}, {strings.Repeat("a", 128), true}, {strings.Repeat("a", 129), false}, {"a b", false}, {"a\x01", false}, {"é", false},
	} {
		a := ask{path: "/v1/users/alice"}
		if c.given != "" {
			a.header = map[string]string{"X-Request-Id": c.given}
		}
		got := g.do(a).header.Get("X-Request-Id")
		if (got == c.given) != c.kept || got == "" || seen[got] {
			t.Errorf("%q: got %q, kept should be %v", c.given, got, c.kept)
		}
		seen[got] = true
	}
}

func TestHTTP_PanicIsAnInternalErrorAndIsLogged(t *testing.T) {
	g := newGateway(t)
	g.store.during = func() { panic("out of tune") }
	got := g.publish(okBody).want(t, 500, "internal")
	if strings.Contains(string(got.body), "tune") || !strings.Contains(g.log.String(), "out of tune") {
		t.Errorf("answer %s, log %s", got.body, g.log)
	}
	g.store.during = nil
	g.publish(okBody).want(t, 201)
}

func TestHTTP_LogsNeitherSecretsNorBodies(t *testing.T) {
	g := newGateway(t)
	g.publish(`{"to":{"users":["u-hunter2"]},"message":{"body":"b-hunter2","headers":{"h":"h-hunter2"},"ref":"r-hunter2"}}`, "k-hunter2").want(t, 201)
	g.publish(`{"to":{"users":["u-hunter2"]},"message":{"body":hunter2}}`).want(t, 400)
	g.store.fail.Store(&push.Error{Kind: push.KindUnavailable, Code: "storage_failed"})
	g.publish(`{"to":{"users":["u-hunter2"]},"message":{"body":"b-hunter2"}}`).want(t, 503)
	g.do(ask{path: "/v1/users/hunter2?x=hunter2"}).want(t, 503)
	log := g.log.String()
	for _, secret := range []string{"hunter2", g.key, testSecret, g.key[len("cak_")+17:]} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q:\n%s", secret, log)
		}
	}
	if n := strings.Count(log, "center: request"); n != 4 {
		t.Errorf("%d access lines, want 4:\n%s", n, log)
	}
	if !strings.Contains(log, "level=WARN") {
		t.Errorf("a failing store is not logged:\n%s", log)
	}
}

func TestHTTP_CountsByOperationAndCode(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	g.publish(okBody, "k").want(t, 201)
	g.publish(okBody, "k").want(t, 201)
	g.publish(`{}`).want(t, 400)
	g.publish(`{"to":{"users":["alice"]},"message":{"body":2}}`, "k").want(t, 422)
	g.do(ask{path: "/v1/" + strings.Repeat("x", 50)}).want(t, 404)
	g.do(ask{method: "BREW", path: "/v1/messages"}).want(t, 405)
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetName() + "=" + l.GetValue()
			}
			if c := m.GetCounter(); c != nil {
				got = append(got, line+" "+string('0'+rune(c.GetValue())))
			}
		}
	}
	want := []string{
		"carillon_center_deliveries_total told=body 1",
		"carillon_center_deliveries_total told=nothing 0",
		"carillon_center_deliveries_total told=place 0",
		"carillon_center_messages_total code= outcome=accepted 1",
		"carillon_center_messages_total code= outcome=repeated 1",
		"carillon_center_messages_total code=idempotency_key_reused outcome=refused 1",
		"carillon_center_messages_total code=invalid_request outcome=refused 1",
		"carillon_center_problems_total code=idempotency_key_reused 1",
		"carillon_center_problems_total code=invalid_request 1",
		"carillon_center_problems_total code=method_not_allowed 1",
		"carillon_center_problems_total code=unknown_path 1",
		"carillon_center_requests_total method=POST route=/v1/messages status=2xx 2",
		"carillon_center_requests_total method=POST route=/v1/messages status=4xx 2",
		"carillon_center_requests_total method=other route=none status=4xx 2",
		"carillon_center_task_users_total 0",
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHTTP_WorksWhereverItIsMounted(t *testing.T) {
	g := newGateway(t)
	outer := chi.NewRouter()
	outer.Mount("/v1", g.public)
	mux := http.NewServeMux()
	mux.Handle("/v1/", g.public)
	for _, h := range []http.Handler{outer, mux} {
		for _, c := range []struct {
			method, path string
			status       int
		}{{"POST", "/v1/messages", 201}, {"GET", "/v1/users/a%2Fb", 200}, {"GET", "/v1/nothing", 404}} {
			w, r := newRequest(t, c.method, c.path, okBody, g.key)
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Errorf("%T %s %s: got %d %s, want %d", h, c.method, c.path, w.Code, w.Body, c.status)
			}
		}
	}
}

func TestNew_NamesWhatIsMissing(t *testing.T) {
	full := newGateway(t).center.cfg
	for _, c := range []struct {
		what string
		drop func(*Config)
	}{
		{"Saver", func(c *Config) { c.Saver = nil }}, {"Register", func(c *Config) { c.Register = nil }},
		{"Rooms", func(c *Config) { c.Rooms = nil }}, {"Catalog", func(c *Config) { c.Catalog = nil }},
		{"Keys", func(c *Config) { c.Keys = nil }}, {"IDs", func(c *Config) { c.IDs = nil }},
		{"Secret", func(c *Config) { c.Secret = "" }}, {"Rand", func(c *Config) { c.Rand = nil }},
	} {
		cfg := full
		cfg.Metrics = nil
		c.drop(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.what) {
			t.Errorf("without %s: got %v", c.what, err)
		}
	}
}

func TestProblem_UnknownCodesGoByTheirKind(t *testing.T) {
	c := newGateway(t).center
	for kind, want := range map[push.Kind]Code{
		push.KindInternal: "internal", push.KindInvalid: "invalid_request", push.KindUnauthenticated: "unauthenticated",
		push.KindForbidden: "internal", push.KindNotFound: "internal", push.KindConflict: "internal",
		push.KindKeyReused: "idempotency_key_reused", push.KindTooLarge: "message_too_large", push.KindLimited: "too_many_requests",
		push.KindUnavailable: "storage_failed", push.KindClosed: "shutting_down",
	} {
		err := fmt.Errorf("store: read: %w", push.Errorf(kind, "unheard_of", "a detail"))
		p := c.problemOf(err)
		if Code(p.Code) != want {
			t.Errorf("kind %d: got %s, want %s", kind, p.Code, want)
		}
		if told := p.Detail != nil; told != (want != "internal") {
			t.Errorf("kind %d: the detail is told: %v", kind, told)
		}
	}
}

var _ Keys = (*auth.APIKeys)(nil)
