package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"carillon/server/dev"
)

// beCarillon names the variable that lets the test binary be the command itself: the bench starts its servers and clients from
// the binary that it runs in.
const beCarillon = "BE_CARILLON"

func TestMain(m *testing.M) {
	if os.Getenv(beCarillon) != "" {
		main()
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

// result is what a command line came to.
type result struct {
	code        int
	out, errOut string
}

// carillon runs a command line in this process.
func carillon(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errOut, environ: env}
	code := a.run(t.Context(), args)
	return result{code, out.String(), errOut.String()}
}

// request is what a fake server was asked.
type request struct {
	method, path, bearer, key string
	body                      any // decoded JSON, nil if there was none
}

// fakeServer answers every request alike and keeps what it was asked.
type fakeServer struct {
	*httptest.Server
	status int
	answer string

	// Guarded by mu.
	mu  sync.Mutex
	got []request
}

func newFakeServer(t *testing.T, status int, answer string) *fakeServer {
	t.Helper()
	f := &fakeServer{status: status, answer: answer}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		f.Close()
	})
	return f
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got := request{
		method: r.Method, path: r.URL.RequestURI(), key: r.Header.Get("Idempotency-Key"),
		bearer: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
	}
	if b, _ := io.ReadAll(r.Body); len(b) > 0 {
		_ = json.Unmarshal(b, &got.body)
	}
	f.mu.Lock()
	f.got = append(f.got, got)
	f.mu.Unlock()
	w.WriteHeader(f.status)
	_, _ = io.WriteString(w, f.answer)
}

func (f *fakeServer) last(t *testing.T) request {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.got) == 0 {
		t.Fatal("the server was not asked")
	}
	return f.got[len(f.got)-1]
}

// devData makes a data directory with the dev.json of a server at these addresses.
func devData(t *testing.T, public, admin string) string {
	t.Helper()
	dir := t.TempDir()
	f := dev.File{
		Public: public, Admin: admin, Product: "dev", KeyID: "dev-1", Key: bytes.Repeat([]byte("k"), 32),
		Secret: "dev-secret", APIKey: "cak_dev", APIKeyID: "k1",
	}
	if err := f.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func jsonValue(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
