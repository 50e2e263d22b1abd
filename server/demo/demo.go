// Package demo is the demo page of a development node: two devices side by side, what reaches them, and a switch that cuts their
// network. It is also what the browsers of end-to-end tests drive.
//
// # Place in the flow
//
// The page and its style are page/index.html and page/demo.css. Its script is clients/js/demo, written against the browser SDK;
// clients/js/scripts/demo.mjs builds it into page/demo.js, which is committed so that a gateway needs Go alone. Its devices connect to
// /connect as all do. What a product's server would do for them is asked of this package:
//
//	GET  /demo/        the page
//	POST /demo/token   a device token, signed with the development key
//	POST /demo/send    -> POST /v1/messages
//	POST /demo/recall  -> DELETE /v1/messages/{id}
//	POST /demo/kick    -> POST /v1/users/{user}/kick
//
// The last three go to the node's own API, in this process, with the development API key. The page never holds a key.
//
// # Invariants
//
// Whoever reaches these paths can do everything with the product "dev". So the gateway has them in development alone, behind a check that
// the request names this machine, and requests that change something are refused here unless they are JSON and no other site's page sent
// them: a page elsewhere can bring a browser to send, but not that. Bodies and tokens are not logged.
package demo

import (
	"embed"
	"errors"
	"net/http"
	"strings"
	"time"

	"carillon/server/push"
)

// Path is where the page lies. It begins all paths of this package.
const Path = "/demo/"

// Lives of the tokens that the page gets.
const (
	MinTokenLife     = 2 * time.Second
	MaxTokenLife     = 24 * time.Hour
	defaultTokenLife = time.Hour
)

//go:embed page/index.html page/demo.css page/demo.js
var page embed.FS

// Config is what the page needs of its node. All of it is needed.
type Config struct {
	// Mint signs a device token that is good for so long.
	Mint func(push.UserID, push.DeviceID, time.Duration) (string, error)

	// API answers requests for /v1, and Key is the API key that they are sent with.
	API http.Handler
	Key string
}

// Handler serves everything under Path, and sends who asks for Path without its last slash there. It is safe for concurrent use.
type Handler struct {
	// Static after construction.
	cfg    Config
	routes map[string]route
}

type route struct {
	method string // GET, which HEAD is as good as, or POST
	serve  http.HandlerFunc
}

// New returns the handler of the page.
func New(cfg Config) (*Handler, error) {
	if cfg.Mint == nil || cfg.API == nil || cfg.Key == "" {
		return nil, errors.New("demo: the configuration is incomplete")
	}
	h := &Handler{cfg: cfg}
	h.routes = map[string]route{
		strings.TrimSuffix(Path, "/"): {http.MethodGet, redirect},
		Path:                          {http.MethodGet, file("index.html", "text/html; charset=utf-8")},
		Path + "demo.css":             {http.MethodGet, file("demo.css", "text/css; charset=utf-8")},
		Path + "demo.js":              {http.MethodGet, file("demo.js", "text/javascript; charset=utf-8")},
		Path + "token":                {http.MethodPost, h.serveToken},
		Path + "send":                 {http.MethodPost, h.serveSend},
		Path + "recall":               {http.MethodPost, h.serveRecall},
		Path + "kick":                 {http.MethodPost, h.serveKick},
	}
	return h, nil
}

// policy has the page load what lies beside it and nothing else, connect to this node alone, and stand in nobody's frame. The schemes of
// WebSockets are named since not every browser takes 'self' for them.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", policy)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	to, ok := h.routes[r.URL.Path]
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "not_found", "there is nothing at this path")
	case to.method == http.MethodPost && r.Method == http.MethodPost:
		guarded(w, r, to.serve)
	case to.method == http.MethodGet && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		to.serve(w, r)
	default:
		w.Header().Set("Allow", to.method)
		refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "this path does not take this method")
	}
}

// redirect sends on to the page, with the devices that the address names.
func redirect(w http.ResponseWriter, r *http.Request) {
	to := Path
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	http.Redirect(w, r, to, http.StatusTemporaryRedirect)
}

func file(name, contentType string) http.HandlerFunc {
	b, err := page.ReadFile("page/" + name)
	if err != nil {
		panic(err) // it is embedded by this name, above
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(b) // a browser that left is no concern of ours
	}
}
