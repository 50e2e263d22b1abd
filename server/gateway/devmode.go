package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"text/template"
	"time"

	_ "embed"

	"github.com/go-chi/chi/v5"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/demo"
	"carillon/server/dev"
	"carillon/server/push"
)

const (
	devProduct = push.ProductID("dev")
	// devTokenLife is how long the token lives that the development server prints.
	devTokenLife = 24 * time.Hour
)

// setUpDev makes the product, the keys and the secret of a development node, as far as dev.json and the catalog do not have them
// already, and writes dev.json.
func (g *Gateway) setUpDev(ctx context.Context) error {
	if err := os.MkdirAll(g.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	f, err := dev.Load(g.cfg.Data)
	if err != nil && !dev.IsMissing(err) {
		return err
	}
	f.Warning = "Development only. Whoever reads this file can do everything with this gateway."
	f.Public, f.Admin, f.TCP, f.Product = g.PublicURL(), urlOf(g.admin.Addr()), g.TCPURL(), string(devProduct)
	if _, err := g.cache.CreateProduct(ctx, catalog.Product{ID: devProduct, Name: "Development"}); err != nil && push.KindOf(err) != push.KindConflict {
		return err
	}
	for _, step := range []func(context.Context, *dev.File) error{g.devSecret, g.devKey, g.devAPIKey} {
		if err := step(ctx, &f); err != nil {
			return fmt.Errorf("gateway: setting up development: %w", err)
		}
	}
	g.dev = f
	return f.Save(g.cfg.Data)
}

func (g *Gateway) devSecret(_ context.Context, f *dev.File) error {
	if g.cfg.Secret != "" {
		f.Secret = g.cfg.Secret
		return nil
	}
	if f.Secret != "" {
		return nil
	}
	b, err := g.random(32)
	f.Secret = dev.SecretMark + base64.RawURLEncoding.EncodeToString(b)
	return err
}

func (g *Gateway) devKey(ctx context.Context, f *dev.File) error {
	if f.KeyID != "" {
		k, err := g.cache.DeviceKey(ctx, devProduct, catalog.KeyID(f.KeyID))
		if err == nil && k.Revoked == 0 {
			return nil
		}
		if err != nil && push.KindOf(err) != push.KindNotFound {
			return err
		}
	}
	name, err := g.random(4)
	if err != nil {
		return err
	}
	if f.Key, err = g.random(32); err != nil {
		return err
	}
	f.KeyID = fmt.Sprintf("dev-%x", name)
	_, err = g.cache.AddDeviceKey(ctx, catalog.DeviceKey{
		Product: devProduct, ID: catalog.KeyID(f.KeyID), Alg: catalog.HS256, Material: f.Key, Name: "made by serve --dev",
	})
	return err
}

func (g *Gateway) devAPIKey(ctx context.Context, f *dev.File) error {
	if f.APIKeyID != "" {
		k, err := g.cache.APIKey(ctx, catalog.APIKeyID(f.APIKeyID))
		if err == nil && k.Revoked == 0 {
			return nil
		}
		if err != nil && push.KindOf(err) != push.KindNotFound {
			return err
		}
	}
	k, text, err := catalog.NewAPIKey(g.cfg.Rand, catalog.APIKey{
		Product: devProduct, Name: "made by serve --dev", Scopes: []catalog.Scope{catalog.ScopeAll},
	})
	if err != nil {
		return err
	}
	if _, err := g.cache.AddAPIKey(ctx, k); err != nil {
		return err
	}
	f.APIKeyID, f.APIKey = string(k.ID), string(text)
	return nil
}

func (g *Gateway) random(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(g.cfg.Rand, b)
	return b, err
}

// urlOf returns the address of a listener without TLS as a URL for people on this machine.
func urlOf(a net.Addr) string { return "http://" + hostOf(a) }

// hostOf returns the address as people on this machine would write it.
func hostOf(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err == nil && ap.Addr().IsUnspecified() {
		return fmt.Sprintf("localhost:%d", ap.Port())
	}
	return a.String()
}

//go:embed devpage.txt
var devText string

//go:embed devpage.html
var devHTML string

// DevText returns what a development node tells its developer: addresses, a device token, and commands that run as they
// stand. command is how the binary was called.
func (g *Gateway) DevText(command string) (string, error) { return g.fill(devText, command) }

func (g *Gateway) fill(text, command string) (string, error) {
	f := g.dev
	if f.Product == "" {
		return "", errors.New("gateway: this is no development node")
	}
	token, err := g.mintDev(auth.Claims{User: "alice", Device: "laptop", Platform: push.PlatformDesktop}, devTokenLife)
	if err != nil {
		return "", err
	}
	data := ""
	if g.cfg.Data != "./data" {
		data = " --data " + shellWord(g.cfg.Data)
	}
	var b strings.Builder
	err = template.Must(template.New("dev").Parse(text)).Execute(&b, map[string]string{
		"Public": f.Public, "Admin": f.Admin, "WebSocket": "ws" + strings.TrimPrefix(f.Public, "http") + "/connect",
		"Product": f.Product, "Token": token, "File": dev.Path(g.cfg.Data), "Command": command, "Data": data,
		"Version": g.cfg.Version,
	})
	return b.String(), err
}

// mintDev signs a token of the development product that is good for so long.
func (g *Gateway) mintDev(c auth.Claims, life time.Duration) (string, error) {
	c.Product, c.Issued, c.Expires = devProduct, g.cfg.Clock.Now(), g.cfg.Clock.Now().Add(life)
	return auth.Mint(auth.SigningKey{ID: catalog.KeyID(g.dev.KeyID), Alg: catalog.HS256, Private: g.dev.Key}, c)
}

// shellWord quotes a word for a shell, if it needs that.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-+,:@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// onThisMachine lets through what asks for this machine by a name that no page elsewhere can have: behind are keys, and whatever they are
// good for. A page of a name that was made to lead here (DNS rebinding) is not let through.
func onThisMachine(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			problem(w, http.StatusForbidden, "forbidden", "what is for development is shown under localhost only")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serveDevPage shows a developer on this machine what DevText says.
func (g *Gateway) serveDevPage(w http.ResponseWriter, _ *http.Request) {
	text, err := g.DevText("./bin/carillon")
	if err != nil {
		problem(w, http.StatusInternalServerError, "internal", "the page could not be made")
		return
	}
	// The demo page is the one address in the text that is for browsers.
	text, at := template.HTMLEscapeString(text), g.dev.Public+demo.Path
	text = strings.Replace(text, at, `<a href="`+demo.Path+`">`+at+`</a>`, 1)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_, _ = io.WriteString(w, strings.Replace(devHTML, "{{.Text}}", text, 1))
}

// routeDev adds what a browser on this machine is shown in development.
func (g *Gateway) routeDev(r chi.Router) {
	page, err := demo.New(demo.Config{
		Mint: func(u push.UserID, d push.DeviceID, life time.Duration) (string, error) {
			return g.mintDev(auth.Claims{User: u, Device: d, Platform: push.PlatformWeb, TagPatterns: []string{"news.*"}}, life)
		},
		API: unrouted(r), Key: g.dev.APIKey,
	})
	if err != nil {
		panic(err) // setUpDev made all that it needs
	}
	r.Method(http.MethodGet, "/", onThisMachine(http.HandlerFunc(g.serveDevPage)))
	r.Handle(strings.TrimSuffix(demo.Path, "/"), onThisMachine(page))
	r.Handle(demo.Path+"*", onThisMachine(page))
}

// unrouted has r route a request that it is given while it serves another one: the context of that says how far it is routed.
func unrouted(r chi.Router) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), chi.RouteCtxKey, (*chi.Context)(nil))))
	})
}
