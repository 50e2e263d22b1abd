package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Fetch reads the document at an address. maxAge is how long it may be kept as far as the address says, negative if it does not
// say. Errors do not hold the address, which may carry what is secret.
type Fetch func(ctx context.Context, address string) (document []byte, maxAge time.Duration, err error)

// NewFetch returns a Fetch by HTTP. Who may be reached, and for how long, is the client's affair.
func NewFetch(client *http.Client) Fetch {
	return func(ctx context.Context, address string) ([]byte, time.Duration, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, 0, errors.New("jwks: the address cannot be asked")
		}
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
		req.Header.Set("User-Agent", "carillon")
		resp, err := client.Do(req)
		if err != nil {
			return nil, 0, fmt.Errorf("jwks: fetch: %w", withoutAddress(err))
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, 0, fmt.Errorf("jwks: the address answers %d", resp.StatusCode)
		}
		if !isJSON(resp.Header.Get("Content-Type")) {
			return nil, 0, errors.New("jwks: the answer is no JSON")
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, MaxDocument+1))
		if err != nil {
			return nil, 0, fmt.Errorf("jwks: read the answer: %w", withoutAddress(err))
		}
		if len(b) > MaxDocument {
			return nil, 0, errTooLarge
		}
		return b, ageOf(resp.Header), nil
	}
}

// withoutAddress takes the address out of an error of net/http.
func withoutAddress(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// isJSON takes what key sets come as. Some servers say nothing, or that it is any bytes; a page is refused.
func isJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch media {
	case "application/json", "application/jwk-set+json", "application/octet-stream", "text/plain":
		return true
	}
	return false
}

// ageOf reads Cache-Control and Age; negative if nothing is said.
func ageOf(h http.Header) time.Duration {
	maxAge := time.Duration(-1)
	for _, line := range h.Values("Cache-Control") {
		for part := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return 0
			case "max-age":
				if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
					maxAge = time.Duration(n) * time.Second
				}
			}
		}
	}
	if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil && maxAge > 0 {
		maxAge = max(0, maxAge-time.Duration(age)*time.Second)
	}
	return maxAge
}
