//go:build !race

// As virtual_test.go, whose network in memory this uses.

package gateway

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever sends requests here sees that the node goes, and has its notice to send them elsewhere: until then nobody is refused, and no
// connection is closed under a request, since each ends with an answer that says so.
func TestGateway_ANodeThatStopsServesEverybodyForItsNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const notice = 3 * time.Second
		network, _, stop := virtualNode(t, func(cfg *Config) { cfg.Notice = notice })
		tr := &http.Transport{DialContext: network.dial}
		defer tr.CloseIdleConnections()
		hc := &http.Client{Transport: tr}
		// ask returns the status, 0 if nobody answers, and whether the connection ends with the answer.
		ask := func(method, url string) (status int, last bool) {
			t.Helper()
			req, err := http.NewRequest(method, url, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := hc.Do(req)
			if err != nil {
				return 0, true
			}
			resp.Body.Close()
			return resp.StatusCode, resp.Close
		}
		const ready, publish, connect = "http://admin:80/readyz", "http://public:80/v1/messages", "http://public:80/connect/sse"
		if status, last := ask("POST", publish); status != http.StatusUnauthorized || last {
			t.Errorf("before: %d, the connection ends %v", status, last)
		}
		before, _ := ask("GET", connect) // without a token
		began, stopped := time.Now(), make(chan time.Duration)
		go func() {
			stop()
			stopped <- time.Since(began)
		}()
		for range 2 {
			synctest.Wait()
			if status, _ := ask("GET", ready); status != http.StatusServiceUnavailable {
				t.Errorf("after %v: /readyz is %d, want 503", time.Since(began), status)
			}
			if status, last := ask("POST", publish); status != http.StatusUnauthorized || !last {
				t.Errorf("after %v: publishing is answered %d, and the connection ends %v", time.Since(began), status, last)
			}
			if status, _ := ask("GET", connect); status != before {
				t.Errorf("after %v: connecting is answered %d, want %d as before", time.Since(began), status, before)
			}
			time.Sleep(notice / 3)
		}
		if took := <-stopped; took < notice || took > notice+time.Second {
			t.Errorf("the node ended after %v, want %v", took, notice)
		}
	})
}
