/** The panel beside a product in the Stripe dashboard. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { useMemo } from "react";

import { ApiProblem, connectionFrom, createApi } from "../api";
import { ProductPanel } from "../panel/ProductPanel";
import OverviewView from "./OverviewView";

const ProductView = (context: ExtensionContextValue) => {
  const connection = connectionFrom(context);
  // The dashboard hands over new objects with every render; the panel starts again only when one of these differs.
  const identity = connection instanceof ApiProblem ? connection.message : JSON.stringify(connection);
  // eslint-disable-next-line react-hooks/exhaustive-deps -- `identity` stands for the contents of `connection`.
  const api = useMemo(() => createApi(connection), [identity]);

  const product = context.environment.objectContext?.id;
  if (!product) return <OverviewView {...context} />;
  return (
    <ProductPanel
      key={`${identity} ${product}`}
      api={api}
      product={product}
      locale={context.userContext.locale}
    />
  );
};

export default ProductView;
