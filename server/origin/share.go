package origin

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Share is what pages of other origins may do on one path: CORS, as the Fetch standard has it. It is safe for concurrent use.
type Share struct {
	// Static after construction.
	rules   *Rules
	methods []string
	allow   string // the same, as a header has them
}

// NewShare returns the share of a path that takes those methods.
func NewShare(rules *Rules, methods ...string) *Share {
	return &Share{rules: rules, methods: methods, allow: strings.Join(methods, ", ")}
}

// Verdict is what to do with a request.
type Verdict uint8

// The verdicts.
const (
	Pass      Verdict = iota // serve it
	Preflight                // it was a browser's question, and the headers are its whole answer: 204
	Refuse                   // its page may not connect: 403
)

// How long a browser keeps the answer to its question. Chromium asks again after two hours whatever it is told.
const maxAge = 2 * time.Hour

// Header values that are the same for every answer. Nobody writes to them: http.Header.Add of a full slice copies it.
var (
	varyOrigin     = []string{"Origin"}
	allowedHeaders = []string{"Authorization, Content-Type, Last-Event-ID, Cache-Control"}
	exposedHeaders = []string{"Retry-After"}
	maxAgeSeconds  = []string{strconv.Itoa(int(maxAge / time.Second))}
)

// Judge says what to do with a request, and puts into the answer's header what its browser wants to read there. Whoever takes
// the connection over and writes the head of the answer by itself has to write what stands there.
func (s *Share) Judge(h http.Header, r *http.Request) Verdict {
	addVary(h)
	origins := r.Header["Origin"]
	if !s.rules.Admit(r) {
		return Refuse
	}
	if len(origins) == 0 || origins[0] == "" {
		return Pass
	}
	h["Access-Control-Allow-Origin"] = origins[:1:1]
	asked := r.Header.Get("Access-Control-Request-Method")
	if r.Method != http.MethodOptions || asked == "" {
		h["Access-Control-Expose-Headers"] = exposedHeaders
		return Pass
	}
	// A method that the path does not take is left out of the answer, and the browser says so to its developer.
	h["Access-Control-Allow-Methods"] = []string{s.allow}
	h["Access-Control-Allow-Headers"] = allowedHeaders
	if slices.Contains(s.methods, asked) {
		h["Access-Control-Max-Age"] = maxAgeSeconds
	}
	return Preflight
}

// addVary tells caches that the answer is another for another page, also where there is no page or it is refused.
func addVary(h http.Header) {
	if len(h["Vary"]) == 0 {
		h["Vary"] = varyOrigin
		return
	}
	h.Add("Vary", "Origin")
}
