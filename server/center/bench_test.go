package center

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const benchBody = `{"to":{"users":["user-000123"]},"message":{"body":{"kind":"order","id":1042,"text":"Your parcel is on its way and will arrive tomorrow."},"ref":"order-1042"}}`

func BenchmarkParsePublish(b *testing.B) {
	body := []byte(benchBody)
	l, of := testLimits(), productLimits()
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, _, err := parsePublish(body, l, of); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePublish_ThousandUsers(b *testing.B) {
	body := []byte(`{"to":{"users":` + list(1000, `"user-%06d"`) + `},"message":{"body":1}}`)
	l, of := testLimits(), productLimits()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := parsePublish(body, l, of); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	req, _, err := parsePublish([]byte(benchBody), testLimits(), productLimits())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		req.digest()
	}
}

// discard is a ResponseWriter that keeps the status only.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

func benchHandler(b *testing.B, path, body string, want int) {
	g := newGateway(b, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader([]byte(body)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+g.key)
		w := &discard{header: http.Header{}}
		g.public.ServeHTTP(w, r)
		if w.status != want {
			b.Fatalf("status %d", w.status)
		}
	}
}

// BenchmarkPublish measures a whole request without its connection: routing, API key, parsing, the store in memory.
func BenchmarkPublish(b *testing.B) { benchHandler(b, "/v1/messages", benchBody, 201) }

func BenchmarkPublish_ValidateOnly(b *testing.B) {
	benchHandler(b, "/v1/messages", strings.TrimSuffix(benchBody, "}")+`,"validate_only":true}`, 200)
}

func BenchmarkPublish_Batch100(b *testing.B) {
	items := make([]string, 100)
	for i := range items {
		items[i] = strings.Replace(benchBody, "000123", fmt.Sprintf("%06d", i), 1)
	}
	benchHandler(b, "/v1/messages/batch", `{"messages":[`+strings.Join(items, ",")+`]}`, 200)
}
