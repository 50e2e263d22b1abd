package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"carillon/server/dev"
)

// Product is the one that a fleet has from the start.
const Product = "dev"

// SetUp makes a product with its keys through the administration of a node, and leaves dev.json in the fleet's directory, so that
// `carillon listen` and `carillon send` work with --data. public is where clients come in, tcp where those over raw TCP do.
func (f *Fleet) SetUp(ctx context.Context, public, tcp string) (dev.File, error) {
	d := dev.File{
		Warning: "Development only. Whoever reads this file can do everything with this cluster.",
		Public:  public, TCP: tcp, Secret: f.secret, Product: Product,
	}
	centers := f.Of(Center)
	if len(centers) == 0 {
		return d, fmt.Errorf("fleet: a product needs a center")
	}
	d.Admin = "http://" + centers[0].Admin()
	at := d.Admin + "/admin/v1/products"
	product := map[string]any{"id": Product, "name": "Development"}
	if f.cfg.Shards > 0 {
		product["shards"] = f.cfg.Shards
	}
	if f.cfg.Limits != nil {
		product["limits"] = f.cfg.Limits
	}
	if err := f.post(ctx, at, product, nil); err != nil {
		return d, err
	}
	var key struct {
		ID     string `json:"id"`
		Secret []byte `json:"secret_base64"`
	}
	if err := f.post(ctx, at+"/"+Product+"/device-keys", map[string]any{"alg": "HS256", "name": "fleet"}, &key); err != nil {
		return d, err
	}
	d.KeyID, d.Key = key.ID, key.Secret
	var api struct {
		ID  string `json:"id"`
		Key string `json:"key"`
	}
	if err := f.post(ctx, at+"/"+Product+"/api-keys", map[string]any{"name": "fleet", "scopes": []string{"*"}}, &api); err != nil {
		return d, err
	}
	d.APIKeyID, d.APIKey = api.ID, api.Key
	return d, d.Save(f.cfg.Dir)
}

// MakeAPIKey makes one more API key of the product, which nobody gets to see.
func (f *Fleet) MakeAPIKey(ctx context.Context) error {
	at := "http://" + f.Of(Center)[0].Admin() + "/admin/v1/products/" + Product + "/api-keys"
	return f.post(ctx, at, map[string]any{"name": "one more", "scopes": []string{"messages:write"}}, nil)
}

func (f *Fleet) post(ctx context.Context, url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+f.secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("fleet: %s was answered %s", req.URL.Path, resp.Status)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("fleet: %s: %w", req.URL.Path, err)
	}
	return nil
}
