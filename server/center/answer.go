package center

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"carillon/server/auth"
	"carillon/server/push"
)

// call is what is known of one request on its way; handlers find it in the context.
type call struct {
	http.ResponseWriter
	id        string
	route     string // pattern of the operation; empty: none matched
	status    int    // 0: nothing was written yet
	code      string // of the problem, if one was answered
	principal auth.Principal
	body      []byte // of the request
	media     string // of an upload
	start     time.Time
}

type callKey struct{}

// callOf returns the call that a handler serves.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// WriteHeader notes the status.
func (a *call) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write notes the status that goes with a body written without one.
func (a *call) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *call) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// outermost names the request, recovers from panics, and measures and logs the answer.
func (c *Center) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &call{ResponseWriter: w, id: c.requestID(r), start: c.cfg.Clock.Now()}
		w.Header().Set("X-Request-Id", a.id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		defer c.finish(a, r)
		ctx := context.WithValue(r.Context(), callKey{}, a)
		if chi.RouteContext(ctx) != nil {
			// Mounted below another router of chi: ours begins anew, with the whole path.
			ctx = context.WithValue(ctx, chi.RouteCtxKey, (*chi.Context)(nil))
		}
		next.ServeHTTP(a, r.WithContext(ctx))
	})
}

func (c *Center) finish(a *call, r *http.Request) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		c.cfg.Log.Error("center: panic", "request", a.id, "route", a.route, "panic", fmt.Sprint(p),
			"stack", string(debug.Stack()))
		if a.status != 0 {
			panic(http.ErrAbortHandler) // half an answer must not look like a whole one
		}
		c.refuse(a, errInternal)
	}
	took := c.cfg.Clock.Now().Sub(a.start)
	c.metrics.request(r.Method, a.route, a.status, a.code)
	if c.cfg.Log.Enabled(r.Context(), slog.LevelDebug) {
		var product push.ProductID
		if a.principal.Product != nil {
			product = a.principal.Product.ID
		}
		c.cfg.Log.Debug("center: request", "request", a.id, "method", r.Method, "route", a.route, "status", a.status,
			"code", a.code, "product", string(product), "took", took)
	}
}

// requestID returns the caller's own name for the request if it is fit for a log, otherwise a fresh one.
func (c *Center) requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); id != "" && len(id) <= 128 && isPrintable(id, 0x21) {
		return id
	}
	var b [32]byte
	s := append(append(b[:0], c.booted...), '-')
	return string(strconv.AppendUint(s, c.requests.Add(1), 10))
}

// isPrintable reports whether s holds bytes from least to '~' only.
func isPrintable(s string, least byte) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < least || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func randomHex(random io.Reader, n int) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("center: random: %w", err)
	}
	return hex.EncodeToString(b), nil
}
