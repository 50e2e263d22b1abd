package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

type productCmd struct {
	Create productCreateCmd `cmd:"" help:"Make a product."`
	List   productListCmd   `cmd:"" help:"List the products."`
	Update productUpdateCmd `cmd:"" help:"Change a product."`
	Policy productPolicyCmd `cmd:"" help:"Say what the names of session policies stand for."`
}

// productSettings are what create and update share.
type productSettings struct {
	policyFlags
	Name          string            `help:"A name for people."`
	TokenLifetime string            `placeholder:"720h" help:"The longest that a device token may be good for; \"default\" for 30 days."`
	Limit         map[string]string `placeholder:"LIMIT=N" help:"A limit, as in own_messages=500; \"default\" for its default; may be repeated. The limits: body_bytes, own_messages, own_bytes, common_messages, common_bytes, ttl_seconds, devices_per_user, device_unseen_seconds, key_ttl_seconds."`
	JWKSURL       string            `name:"jwks-url" placeholder:"URL" help:"Where the product publishes the keys that sign its device tokens (a JSON Web Key Set); \"none\" for nowhere."`
	TaskAbove     string            `name:"task-approval-above" placeholder:"N" help:"Tasks for more users than N another API key has to approve than the one that made them; \"never\" for none, however many."`
	TaskEveryone  *bool             `name:"task-approval-everyone" placeholder:"true|false" help:"The same of tasks for everyone, and of those of which nobody can tell for how many users they are."`
	FirstVisit    map[string]string `placeholder:"WHICH=WHERE" help:"Where new devices begin: first, later or common; beginning, head or default; may be repeated."`
}

// settings returns the members of the request that were given. null stands for a default.
func (s *productSettings) settings(a *app) (map[string]any, error) {
	out := make(map[string]any)
	if policy, ok, err := s.request(a); err != nil {
		return nil, err
	} else if ok {
		out["session_policy"] = policy
	}
	if s.Name != "" {
		out["name"] = s.Name
	}
	switch s.TokenLifetime {
	case "":
	case "default":
		out["token_lifetime_seconds"] = nil
	default:
		d, err := time.ParseDuration(s.TokenLifetime)
		if err != nil || d%time.Second != 0 {
			return nil, usagef("--token-lifetime: write a time in whole seconds, as in 720h, or default")
		}
		out["token_lifetime_seconds"] = int64(d / time.Second)
	}
	switch s.JWKSURL {
	case "":
	case "none":
		out["jwks_url"] = nil
	default:
		out["jwks_url"] = s.JWKSURL
	}
	if len(s.Limit) > 0 {
		limits := make(map[string]any)
		for name, value := range s.Limit {
			n, err := strconv.ParseInt(value, 10, 64)
			switch {
			case value == "default":
				limits[name] = nil
			case err != nil:
				return nil, usagef("--limit %s: write a whole number, or default", name)
			default:
				limits[name] = n
			}
		}
		out["limits"] = limits
	}
	if s.TaskAbove != "" || s.TaskEveryone != nil {
		approval := make(map[string]any)
		switch n, err := strconv.ParseInt(s.TaskAbove, 10, 64); {
		case s.TaskAbove == "":
		case s.TaskAbove == "never":
			approval["above_users"] = nil
		case err != nil || n < 1:
			return nil, usagef("--task-approval-above: write a whole number above zero, or never")
		default:
			approval["above_users"] = n
		}
		if s.TaskEveryone != nil {
			approval["everyone"] = *s.TaskEveryone
		}
		out["task_approval"] = approval
	}
	if len(s.FirstVisit) > 0 {
		visit := make(map[string]any)
		for name, value := range s.FirstVisit {
			visit[name] = value
			if value == "default" {
				visit[name] = nil
			}
		}
		out["first_visit"] = visit
	}
	return out, nil
}

type productCreateCmd struct {
	adminFlags
	productSettings
	ID     string `arg:"" help:"1 to 64 of a-z, 0-9, - and _."`
	Shards int    `placeholder:"N" help:"Parts that its users are divided into: 64, on Redis 1024, unless you say otherwise; it can never change."`
}

// Help is shown under --help.
func (productCreateCmd) Help() string {
	return `Example:

    carillon product create shop --name "Web shop" --limit own_messages=500`
}

// Run executes the command.
func (c *productCreateCmd) Run(ctx context.Context, a *app) error {
	body, err := c.settings(a)
	if err != nil {
		return err
	}
	body["id"] = c.ID
	if c.Shards != 0 {
		body["shards"] = c.Shards
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if _, err := t.call(ctx, http.MethodPost, "/admin/v1/products", body, nil); err != nil {
		return err
	}
	a.print("made product %s; give it keys with: carillon key create --product %s --kind api (and --kind device)",
		c.ID, c.ID)
	return nil
}

type productUpdateCmd struct {
	adminFlags
	productSettings
	ID      string `arg:"" help:"The product."`
	Disable bool   `xor:"disable" help:"Refuse its requests and its devices."`
	Enable  bool   `xor:"disable" help:"Take them again."`
}

// Help is shown under --help.
func (productUpdateCmd) Help() string {
	return `Example:

    carillon product update dev --limit own_messages=500 --first-visit common=beginning
    carillon product update dev --policy at-most-3 --on-excess reject_new
    carillon product update dev --task-approval-above 50000 --task-approval-everyone=true`
}

// Run executes the command.
func (c *productUpdateCmd) Run(ctx context.Context, a *app) error {
	body, err := c.settings(a)
	if err != nil {
		return err
	}
	if c.Disable || c.Enable {
		body["disabled"] = c.Disable
	}
	if len(body) == 0 {
		return usagef("nothing to change was named; see --help")
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if _, err := t.call(ctx, http.MethodPatch, "/admin/v1/products/"+url.PathEscape(c.ID), body, nil); err != nil {
		return err
	}
	a.print("changed product %s", c.ID)
	return nil
}

type productListCmd struct {
	adminFlags
	JSON bool `name:"json" help:"Print each product as it came, one a line."`
}

// Help is shown under --help.
func (productListCmd) Help() string {
	return `Example:

    carillon product list`
}

// Run executes the command.
func (c *productListCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	columns := []string{"id", "name", "shards", "disabled", "created"}
	return listed(ctx, a, t, "/admin/v1/products", "products", c.JSON, columns)
}

// listed prints a list: as a table of the columns, or each item as it came.
func listed(ctx context.Context, a *app, t target, path, name string, asJSON bool, columns []string) error {
	if asJSON {
		return t.pages(ctx, path, name, func(item json.RawMessage) error {
			a.print("%s", item)
			return nil
		})
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(columns, "\t")))
	err := t.pages(ctx, path, name, func(item json.RawMessage) error {
		var fields map[string]any
		if err := json.Unmarshal(item, &fields); err != nil {
			return fmt.Errorf("read the list: %w", err)
		}
		cells := slices.Clone(columns)
		for i, column := range columns {
			cells[i] = cell(fields[column])
		}
		_, err := fmt.Fprintln(w, strings.Join(cells, "\t"))
		return err
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

// cell returns a value as a table shows it; what is not there or empty is a dash.
func cell(v any) string {
	var s string
	switch v := v.(type) {
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = fmt.Sprint(e)
		}
		s = strings.Join(parts, ",")
	case float64:
		s = strconv.FormatFloat(v, 'f', -1, 64)
	case nil:
	default:
		s = fmt.Sprint(v)
	}
	if s == "" {
		return "-"
	}
	return strings.ReplaceAll(printable(s), "\n", " ")
}
