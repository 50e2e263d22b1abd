package center

import (
	"context"

	"carillon/server/catalog"
	adminapi "carillon/server/center/api/admin"
	"carillon/server/center/strictjson"
	"carillon/server/push"
)

// productID reads a product from a path or query.
func productID(s string) (push.ProductID, error) {
	p := push.ProductID(s)
	if err := p.Check(); err != nil {
		return "", &badParameter{"product", strictjson.BadFormat, err.Error()}
	}
	return p, nil
}

// pageAfter judges the parameters of a list in the catalog.
func pageAfter(limit *int, cursor *string) (catalog.Page, error) {
	n, err := pageOf(limit)
	page := catalog.Page{Limit: n}
	if cursor != nil {
		page.After = *cursor
	}
	return page, err
}

// CreateProduct serves POST /admin/v1/products.
func (o adminOps) CreateProduct(
	ctx context.Context, _ adminapi.CreateProductRequestObject,
) (adminapi.CreateProductResponseObject, error) {
	p, err := parseProduct(callOf(ctx).body)
	if err != nil {
		return nil, err
	}
	if p, err = o.cfg.Catalog.CreateProduct(ctx, p); err != nil {
		return nil, err
	}
	return adminapi.CreateProduct201JSONResponse(showProduct(&p)), nil
}

// ListProducts serves GET /admin/v1/products.
func (o adminOps) ListProducts(
	ctx context.Context, in adminapi.ListProductsRequestObject,
) (adminapi.ListProductsResponseObject, error) {
	page, err := pageAfter(in.Params.Limit, in.Params.Cursor)
	if err != nil {
		return nil, err
	}
	list, err := o.cfg.Catalog.Products(ctx, page)
	if err != nil {
		return nil, err
	}
	out := adminapi.ListProducts200JSONResponse{Products: []adminapi.Product{}, NextCursor: optString(list.Next)}
	for i := range list.Items {
		out.Products = append(out.Products, showProduct(&list.Items[i]))
	}
	return out, nil
}

// GetProduct serves GET /admin/v1/products/{product}.
func (o adminOps) GetProduct(
	ctx context.Context, in adminapi.GetProductRequestObject,
) (adminapi.GetProductResponseObject, error) {
	id, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	p, err := o.cfg.Catalog.Product(ctx, id)
	if err != nil {
		return nil, err
	}
	return adminapi.GetProduct200JSONResponse(showProduct(&p)), nil
}

// maxUpdates is how often a change is tried again when somebody else was faster.
const maxUpdates = 5

// UpdateProduct serves PATCH /admin/v1/products/{product}.
func (o adminOps) UpdateProduct(
	ctx context.Context, in adminapi.UpdateProductRequestObject,
) (adminapi.UpdateProductResponseObject, error) {
	id, err := productID(in.Product)
	if err != nil {
		return nil, err
	}
	if err := patchProduct(callOf(ctx).body, new(catalog.Product)); err != nil {
		return nil, err // before looking whether the product exists
	}
	for try := 1; ; try++ {
		p, err := o.cfg.Catalog.Product(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := patchProduct(callOf(ctx).body, &p); err != nil {
			return nil, err
		}
		p, err = o.cfg.Catalog.UpdateProduct(ctx, p)
		if push.KindOf(err) == push.KindConflict && try < maxUpdates {
			continue
		}
		if err != nil {
			return nil, err
		}
		return adminapi.UpdateProduct200JSONResponse(showProduct(&p)), nil
	}
}

func showProduct(p *catalog.Product) adminapi.Product {
	l, f := p.Limits.WithDefaults(), p.FirstVisit.WithDefaults()
	return adminapi.Product{
		Id: string(p.ID), Name: p.Name, Shards: p.Shards, Disabled: p.Disabled,
		TokenLifetimeSeconds: seconds(p.MaxTokenLifetime()),
		Limits: adminapi.Limits{
			BodyBytes: l.BodyBytes, OwnMessages: l.OwnMessages, OwnBytes: l.OwnBytes, CommonMessages: l.CommonMessages,
			CommonBytes: l.CommonBytes, TtlSeconds: seconds(l.TTL), DevicesPerUser: l.DevicesPerUser,
			DeviceUnseenSeconds: seconds(l.DeviceUnseen), KeyTtlSeconds: seconds(l.KeyTTL), Sessions: optLimit(l.Sessions),
		},
		FirstVisit: adminapi.FirstVisit{
			First:  adminapi.FirstVisitFirst(showStart(f.First)),
			Later:  adminapi.FirstVisitLater(showStart(f.Later)),
			Common: adminapi.FirstVisitCommon(showStart(f.Common)),
		},
		SessionPolicy: showSessionPolicy(p.Sessions),
		TaskApproval:  showApproval(p.Approval),
		JwksUrl:       optString(p.JWKS), Created: showTime(p.Created), Updated: showTime(p.Updated),
	}
}

func showStart(at push.StartAt) string {
	if at == push.StartBeginning {
		return "beginning"
	}
	return "head"
}
