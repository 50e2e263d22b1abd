package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"
)

type keyCmd struct {
	Create keyCreateCmd `cmd:"" help:"Make a key."`
	List   keyListCmd   `cmd:"" help:"List keys."`
	Revoke keyRevokeCmd `cmd:"" help:"Revoke a key."`
}

// keyFlags say which keys are meant.
type keyFlags struct {
	adminFlags
	Product string `placeholder:"PRODUCT" help:"The product (CARILLON_PRODUCT); that of the development server if there is one."`
	Kind    string `enum:"device,api" required:"" help:"device: signs device tokens; api: calls the REST interface."`
}

// path returns where the keys are, and under which name lists have them.
func (f *keyFlags) path(a *app) (string, error) {
	product := first(f.Product, a.env(envProduct))
	if product == "" {
		file, _, err := f.load(a)
		if err != nil {
			return "", err
		}
		if product = file.Product; product == "" {
			return "", usagef("no product is named: give --product")
		}
	}
	return "/admin/v1/products/" + url.PathEscape(product) + "/" + f.Kind + "-keys", nil
}

type keyCreateCmd struct {
	keyFlags
	Name  string   `help:"A name for people."`
	Scope []string `help:"With api: what it may do: messages:write, messages:read, users:read, users:write, sessions:write, tasks:read, tasks:write, tasks:approve, or *; may be repeated."`
	Ends  string   `placeholder:"TIME" help:"With api: when it ends, as in 2027-01-31T00:00:00Z or, from now, 720h."`

	Alg              string `enum:"HS256,RS256,ES256,EdDSA" default:"HS256" help:"With device: the algorithm of the tokens, one of ${enum}."`
	Kid              string `placeholder:"ID" help:"With device: the key's id."`
	PublicKeyFile    string `placeholder:"FILE" help:"With device and RS256, ES256 or EdDSA: the public key, PEM."`
	SharedSecretFile string `placeholder:"FILE" help:"With device and HS256: a secret of yours, in base64; one is made if you give none."`

	Out string `placeholder:"FILE" help:"Write the new secret into this new file instead of showing it."`
}

// Help is shown under --help.
func (keyCreateCmd) Help() string {
	return `What is made is shown once: the API key, or the secret of an HS256 key in base64.

Example:

    carillon key create --kind api --scope messages:write --name "order service"`
}

// Run executes the command.
func (c *keyCreateCmd) Run(ctx context.Context, a *app) error {
	body, err := c.request(time.Now())
	if err != nil {
		return err
	}
	path, err := c.path(a)
	if err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	// Made before the key is: a secret that cannot be written down would be lost.
	out := a.stdout
	if c.Out != "" {
		f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	b, err := t.call(ctx, http.MethodPost, path, body, nil)
	if err != nil {
		if c.Out != "" {
			_ = os.Remove(c.Out) // nothing stands in it
		}
		return err
	}
	var made struct {
		ID     string `json:"id"`
		Key    string `json:"key"`
		Secret string `json:"secret_base64"`
	}
	if err := json.Unmarshal(b, &made); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	a.say("made %s key %s", c.Kind, printable(made.ID))
	if secret := first(made.Key, made.Secret); secret != "" {
		_, err = fmt.Fprintln(out, printable(secret))
	}
	return err
}

func (c *keyCreateCmd) request(now time.Time) (map[string]any, error) {
	body := make(map[string]any)
	if c.Name != "" {
		body["name"] = c.Name
	}
	if c.Kind == "api" {
		if len(c.Scope) == 0 {
			return nil, usagef("an API key needs at least one --scope")
		}
		if c.Kid != "" || c.PublicKeyFile != "" || c.SharedSecretFile != "" {
			return nil, usagef("--kid, --public-key-file and --shared-secret-file belong to --kind device")
		}
		body["scopes"] = c.Scope
		return body, c.ends(body, now)
	}
	if len(c.Scope) > 0 || c.Ends != "" {
		return nil, usagef("--scope and --ends belong to --kind api")
	}
	body["alg"] = c.Alg
	if c.Kid != "" {
		body["id"] = c.Kid
	}
	for _, f := range []struct{ path, name string }{
		{c.PublicKeyFile, "public_key"}, {c.SharedSecretFile, "secret_base64"},
	} {
		if f.path != "" {
			text, err := readSecret(f.path)
			if err != nil {
				return nil, err
			}
			body[f.name] = text
		}
	}
	if (c.Alg == "HS256") != (c.PublicKeyFile == "") || c.Alg != "HS256" && c.SharedSecretFile != "" {
		return nil, usagef("HS256 takes --shared-secret-file or nothing, the other algorithms --public-key-file")
	}
	return body, nil
}

func (c *keyCreateCmd) ends(body map[string]any, now time.Time) error {
	at, err := momentOf("--ends", c.Ends, now)
	if at != "" {
		body["expires"] = at
	}
	return err
}

type keyListCmd struct {
	keyFlags
	JSON bool `name:"json" help:"Print each key as it came, one a line."`
}

// Help is shown under --help.
func (keyListCmd) Help() string {
	return `Revoked keys are listed too. Secrets are never shown.

Example:

    carillon key list --kind api`
}

// Run executes the command.
func (c *keyListCmd) Run(ctx context.Context, a *app) error {
	path, err := c.path(a)
	if err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	columns := []string{"id", "name", "alg", "created", "revoked"}
	if c.Kind == "api" {
		columns = []string{"id", "name", "scopes", "created", "expires", "revoked"}
	}
	return listed(ctx, a, t, path, "keys", c.JSON, columns)
}

type keyRevokeCmd struct {
	keyFlags
	ID string `arg:"" help:"The key's id."`
}

// Help is shown under --help.
func (keyRevokeCmd) Help() string {
	return `What the key signed, or who shows it, is refused within a second. There is no way back.

Example:

    carillon key revoke --kind device 2026-11`
}

// Run executes the command.
func (c *keyRevokeCmd) Run(ctx context.Context, a *app) error {
	path, err := c.path(a)
	if err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if _, err := t.call(ctx, http.MethodDelete, path+"/"+url.PathEscape(c.ID), nil, nil); err != nil {
		return err
	}
	a.print("revoked %s key %s", c.Kind, c.ID)
	return nil
}
